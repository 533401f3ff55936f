// The node's meter on disk: OPEN before a run's first token leaves, PROGRESS as it goes, CLOSE exactly once, ACK when the
// edge has settled it. Append-only, one fsync for all that wait; a file that grew is replaced by a snapshot of what is live.
import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, readFile, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Receipt } from '../schema/wire.ts'
import { StartError } from './config.ts'
import {
  encodeRecord,
  type JournalRecord,
  JournalState,
  keyOf,
  type OpenRun,
  type RunCounts,
  type RunKey,
} from './journal_records.ts'
import { log, reasonOf } from './log.ts'

/** A signed call lives 60 s with 30 s of skew; an attempt older than this can only be refused by its expiry. */
const SEEN_MS = 5 * 60_000
const ROTATE_BYTES = 4 * 1024 * 1024

export interface JournalOptions {
  readonly dir: string
  readonly nodeId: string
  /** Called once when the disk fails: what is not durable must not be served. */
  readonly onFailure: (error: unknown) => void
  readonly rotateBytes?: number
}

export type Closing = Pick<Receipt, 'finish' | 'prefix'> & { readonly counts: RunCounts }

interface Waiter {
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

const syncDir = async (dir: string): Promise<void> => {
  const handle = await open(dir, 'r')
  await handle.sync().finally(() => handle.close())
}

/** What runs need of the journal. */
export type Meter = Pick<Journal, 'open' | 'progress' | 'close' | 'hasSeen' | 'pending' | 'openRuns'>

export class Journal {
  readonly #options: JournalOptions
  readonly #state: JournalState
  #file: FileHandle | undefined
  #epoch = ''
  #seq = 0
  #bytes = 0
  #rotateAt = 0
  #buffer: string[] = []
  #waiters: Waiter[] = []
  #pumping: Promise<void> | undefined
  #failure: { readonly error: unknown } | undefined

  private constructor(options: JournalOptions, state: JournalState) {
    this.#options = options
    this.#state = state
  }

  /**
   * Replays what is in `dir`, closes runs that a crash left open from their last PROGRESS (finish `node_lost`), and starts
   * a new epoch. The number of damaged lines is logged; each cost at most itself.
   */
  static async start(options: JournalOptions): Promise<Journal> {
    return Journal.#begin(options).catch((error: unknown) => {
      if (error instanceof StartError) throw error
      throw new StartError(
        `${options.dir} cannot be used: ${reasonOf(error)}. Mend it, or choose another SPARROW_STATE_DIR.`,
      )
    })
  }

  static async #begin(options: JournalOptions): Promise<Journal> {
    await mkdir(options.dir, { recursive: true, mode: 0o700 })
    const state = new JournalState()
    const files = await journalFiles(options.dir)
    for (const file of files) {
      const damaged = replayFile(state, file, await readFile(join(options.dir, file), 'utf8'))
      if (damaged > 0) log('warn', 'journal_damaged_lines', { file, damaged })
    }
    const journal = new Journal(options, state)
    journal.#nextEpoch(files.at(-1))
    for (const { run, counts } of [...state.open.values()]) {
      journal.#closeNow(run, { finish: 'node_lost', prefix: [], counts })
      log('warn', 'orphan_closed', { request: run.requestId, attempt: run.attempt, output: counts.output })
    }
    // The snapshot below holds these closes already.
    journal.#buffer = []
    await journal.#writeSnapshot(files)
    return journal
  }

  get epoch(): string {
    return this.#epoch
  }

  /** True when this attempt was taken before, in this life of the node or an earlier one. */
  hasSeen(key: RunKey): boolean {
    return this.#state.seen.has(keyOf(key))
  }

  /** Closed and not yet acknowledged, oldest first. */
  get pending(): ReadonlyMap<string, Receipt> {
    return this.#state.closed
  }

  get openRuns(): number {
    return this.#state.open.size
  }

  /** The disk failed: no run can be opened any more. */
  get failed(): boolean {
    return this.#failure !== undefined
  }

  /** Resolves when the OPEN is durable; the attempt counts as seen at once. */
  open(run: OpenRun): Promise<void> {
    this.#append({ t: 'open', run })
    return this.sync()
  }

  /** Not awaited by anybody: a lost PROGRESS is to the customer's good. */
  progress(key: RunKey, counts: RunCounts): void {
    this.#append({ t: 'progress', requestId: key.requestId, attempt: key.attempt, counts })
    this.sync().catch(() => {})
  }

  /** Resolves with the receipt when the CLOSE is durable. Closing a run that is not open is a bug. */
  async close(key: RunKey, closing: Closing): Promise<Receipt> {
    const entry = this.#state.open.get(keyOf(key))
    if (!entry) throw new Error(`run ${keyOf(key)} is not open`)
    const receipt = this.#closeNow(entry.run, closing)
    await this.sync()
    return receipt
  }

  /** Forgets a receipt that the edge took (or refused for ever). A lost ACK costs one redelivery, so none waits for it. */
  acknowledge(key: RunKey): void {
    if (!this.#state.closed.has(keyOf(key))) return
    this.#append({ t: 'ack', requestId: key.requestId, attempt: key.attempt })
    this.sync().catch(() => {})
  }

  /** Resolves when everything appended so far is on disk; one fsync serves all that wait. */
  sync(): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure.error)
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      this.#pumping ??= this.#pump()
    })
  }

  async stop(): Promise<void> {
    await this.sync().catch(() => {})
    await this.#file?.close().catch(() => {})
    this.#file = undefined
    this.#failure ??= { error: new Error('the journal is closed') }
  }

  #append(record: JournalRecord): number {
    if (this.#failure) throw this.#failure.error
    this.#state.apply(record)
    this.#buffer.push(encodeRecord(record))
    return this.#seq++
  }

  #closeNow(run: OpenRun, { finish, prefix, counts }: Closing): Receipt {
    const receipt: Receipt = {
      version: 1,
      ...run,
      nodeId: this.#options.nodeId,
      epoch: this.#epoch,
      seq: this.#seq,
      hitTokens: counts.hit,
      missTokens: counts.miss,
      outputTokens: counts.output,
      reasoningTokens: counts.reasoning,
      finish,
      firstTokenAt: counts.firstTokenAt,
      // Clocks may step back; a receipt that closes before it opened would be refused.
      closedAt: Math.max(Date.now(), run.openedAt),
      prefix,
      ...(counts.firstPrompt ? { firstPrompt: counts.firstPrompt } : {}),
    }
    this.#append({ t: 'close', receipt })
    return receipt
  }

  async #pump(): Promise<void> {
    // Everything appended in this turn of the event loop shares the fsync.
    await Promise.resolve()
    while (this.#waiters.length > 0 && !this.#failure) {
      const waiters = this.#waiters
      const text = this.#buffer.join('')
      this.#waiters = []
      this.#buffer = []
      try {
        await this.#write(text)
        if (this.#bytes > this.#rotateAt) await this.#tryRotate()
        for (const { resolve } of waiters) resolve()
      } catch (error) {
        this.#fail(error, waiters)
      }
    }
    this.#pumping = undefined
  }

  #fail(error: unknown, waiters: readonly Waiter[]): void {
    this.#failure = { error }
    log('error', 'journal_failed', { error: reasonOf(error) })
    for (const { reject } of [...waiters, ...this.#waiters]) reject(error)
    this.#waiters = []
    this.#options.onFailure(error)
  }

  async #write(text: string): Promise<void> {
    if (!this.#file) throw new Error('the journal has no file')
    if (text === '') return
    const bytes = Buffer.from(text)
    await this.#file.appendFile(bytes)
    await this.#file.datasync()
    this.#bytes += bytes.length
  }

  /** Without room or descriptors for a new file the old one goes on: nothing is lost by its growing. */
  async #tryRotate(): Promise<void> {
    const file = this.#file
    try {
      await this.#rotate()
    } catch (error) {
      if (this.#file !== file) throw error
      this.#rotateAt = 2 * this.#bytes
      log('warn', 'journal_not_rotated', { error: reasonOf(error) })
    }
  }

  async #rotate(): Promise<void> {
    const old = this.#file
    const files = await journalFiles(this.#options.dir)
    // Only here: what closed while the folder was read took numbers of this epoch.
    const [epoch, seq] = [this.#epoch, this.#seq]
    this.#nextEpoch(files.at(-1))
    await this.#writeSnapshot(files).catch((error: unknown) => {
      if (this.#file === old) [this.#epoch, this.#seq] = [epoch, seq]
      throw error
    })
    await old?.close()
  }

  /** Epochs sort by name in order of time, whatever the clock does. */
  #nextEpoch(last: string | undefined): void {
    const lastTime = last ? Number.parseInt(last.slice('journal-'.length, 'journal-'.length + 9), 36) : 0
    const time = Math.max(Date.now(), lastTime + 1)
      .toString(36)
      .padStart(9, '0')
    this.#epoch = `${time}-${randomBytes(4).toString('hex')}`
    this.#seq = 0
  }

  /** Starts the file of this epoch with all that is live; only when that is durable do the older files go. */
  async #writeSnapshot(older: readonly string[]): Promise<void> {
    const { dir, rotateBytes = ROTATE_BYTES } = this.#options
    const records = this.#state.snapshot(Date.now() - SEEN_MS)
    const bytes = Buffer.from(records.map(encodeRecord).join(''))
    const path = join(dir, `journal-${this.#epoch}.log`)
    const file = await open(path, 'ax', 0o600)
    try {
      await file.appendFile(bytes)
      await file.sync()
      await syncDir(dir)
    } catch (error) {
      await file.close().catch(() => {})
      await unlink(path).catch(() => {})
      throw error
    }
    this.#file = file
    this.#bytes = bytes.length
    this.#rotateAt = Math.max(rotateBytes, 2 * bytes.length)
    for (const name of older) await unlink(join(dir, name))
  }
}

const journalFiles = async (dir: string): Promise<string[]> =>
  (await readdir(dir)).filter((name) => /^journal-[\w-]+\.log$/.test(name)).sort()

const replayFile = (state: JournalState, file: string, text: string): number => {
  try {
    return state.replay(text)
  } catch (error) {
    const cause = reasonOf(error).replaceAll(/\s+/g, ' ')
    throw new StartError(`${file} holds records that this version cannot read; start the one that wrote it. ${cause}`)
  }
}
