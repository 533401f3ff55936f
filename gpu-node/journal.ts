// The node's journal: what happened, append-only, durable before anyone is told. One line a record, a checksum before it; a torn
// last line is the only damage a kill can do. One fsync serves every record that waits for it. A file is one epoch; starting (or
// growing too large) begins a new one that carries over what the edge has not acknowledged.
import { randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, readFile, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { z } from 'zod'
import { type Receipt, receiptSchema } from '../schema/wire.ts'

/** What is known when a run starts; the rest of its receipt is written at the end, or after a crash. */
export type OpenRun = Pick<
  Receipt,
  'requestId' | 'attempt' | 'accountId' | 'keyId' | 'nodeId' | 'model' | 'openedAt' | 'hitTokens' | 'missTokens'
>
export type Progress = Pick<
  Receipt,
  'requestId' | 'attempt' | 'hitTokens' | 'missTokens' | 'outputTokens' | 'reasoningTokens' | 'firstTokenAt'
>
/** A receipt before the journal gives it its place. */
export type Closing = Omit<Receipt, 'epoch' | 'seq' | 'version'>

const runKey = (r: { readonly requestId: string; readonly attempt: number }): string => `${r.requestId}/${r.attempt}`

const openSchema = receiptSchema.pick({
  ...{ requestId: true, attempt: true, accountId: true, keyId: true, nodeId: true, model: true },
  ...{ openedAt: true, hitTokens: true, missTokens: true },
})
const progressSchema = receiptSchema.pick({
  ...{ requestId: true, attempt: true, hitTokens: true, missTokens: true },
  ...{ outputTokens: true, reasoningTokens: true, firstTokenAt: true },
})
const recordSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('open'), run: openSchema }),
  z.object({ type: z.literal('progress'), run: progressSchema }),
  z.object({ type: z.literal('close'), receipt: receiptSchema }),
  z.object({ type: z.literal('ack'), key: z.string() }),
])
type JournalRecord = z.infer<typeof recordSchema>

const toLine = (record: JournalRecord): string => {
  const json = JSON.stringify(record)
  return `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`
}

/** Records up to the first damaged line; what follows a torn write was never acknowledged to anyone. */
const readRecords = (text: string): JournalRecord[] => {
  const records: JournalRecord[] = []
  for (const line of text.split('\n')) {
    const json = line.slice(9)
    if (line.length < 10 || crc32(json).toString(16).padStart(8, '0') !== line.slice(0, 8)) break
    const parsed = recordSchema.safeParse(JSON.parse(json))
    if (!parsed.success) break
    records.push(parsed.data)
  }
  return records
}

interface State {
  readonly open: Map<string, OpenRun & Partial<Progress>>
  readonly closed: Map<string, Receipt>
}

const apply = (state: State, record: JournalRecord): void => {
  if (record.type === 'ack') {
    state.closed.delete(record.key)
    return
  }
  const key = runKey(record.type === 'close' ? record.receipt : record.run)
  if (record.type === 'open') state.open.set(key, record.run)
  if (record.type === 'progress') {
    const run = state.open.get(key)
    if (run) state.open.set(key, { ...run, ...record.run })
  }
  if (record.type === 'close') {
    state.open.delete(key)
    state.closed.set(key, record.receipt)
  }
}

const EPOCH_BYTES_MAX = 64 * 1024 * 1024

export class Journal {
  readonly #dir: string
  #state: State = { open: new Map(), closed: new Map() }
  #epoch = ''
  #seq = 0
  #bytes = 0
  #file: FileHandle | undefined
  #waiting: { line: string; done: () => void; failed: (error: unknown) => void }[] = []
  #writing: Promise<void> | undefined

  private constructor(dir: string) {
    this.#dir = dir
  }

  /** Replays what an earlier process left, closes its orphans from their last progress, begins a new epoch. */
  static async open(dir: string): Promise<Journal> {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const journal = new Journal(dir)
    const files = (await readdir(dir)).filter((name) => name.endsWith('.journal')).sort()
    for (const name of files) {
      for (const record of readRecords(await readFile(join(dir, name), 'utf8'))) apply(journal.#state, record)
    }
    const orphans = [...journal.#state.open.values()]
    await journal.#beginEpoch()
    for (const run of orphans) {
      await journal.close({
        ...{ outputTokens: 0, reasoningTokens: 0, firstTokenAt: null, ...run },
        finish: 'node_lost',
        closedAt: Math.max(Date.now(), run.openedAt),
        prefix: [],
      })
    }
    return journal
  }

  /** Durable when it returns: no token of the run may leave before. */
  async openRun(run: OpenRun): Promise<void> {
    await this.#append({ type: 'open', run })
  }

  /** Bounds what a crash can lose; nobody waits for it. */
  progress(run: Progress): void {
    this.#append({ type: 'progress', run }).catch(() => {})
  }

  /** Durable when it returns; exactly once a run. */
  async close(closing: Closing): Promise<Receipt> {
    const receipt: Receipt = { ...closing, version: 1, epoch: this.#epoch, seq: this.#seq++ }
    await this.#append({ type: 'close', receipt })
    return receipt
  }

  /** The edge has it (or refused it for ever): the record may be forgotten. */
  async acknowledge(runs: readonly { requestId: string; attempt: number }[]): Promise<void> {
    await Promise.all(runs.map((run) => this.#append({ type: 'ack', key: runKey(run) })))
  }

  /** Closed and not acknowledged, oldest first. */
  pending(limit: number): Receipt[] {
    return [...this.#state.closed.values()].slice(0, limit)
  }

  get pendingCount(): number {
    return this.#state.closed.size
  }

  /** True when this run is known here; a node takes the same attempt only once. */
  knows(run: { readonly requestId: string; readonly attempt: number }): boolean {
    return this.#state.open.has(runKey(run)) || this.#state.closed.has(runKey(run))
  }

  async stop(): Promise<void> {
    await this.#writing
    await this.#file?.close()
    this.#file = undefined
  }

  #append(record: JournalRecord): Promise<void> {
    apply(this.#state, record)
    const line = toLine(record)
    return new Promise((done, failed) => {
      this.#waiting.push({ line, done, failed })
      this.#writing ??= this.#writeAll()
    })
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0)
      try {
        if (!this.#file) throw new Error('the journal is closed')
        const text = batch.map(({ line }) => line).join('')
        await this.#file.appendFile(text)
        await this.#file.datasync()
        this.#bytes += text.length
        for (const { done } of batch) done()
        // Here and only here: nothing else writes meanwhile, later records wait their turn.
        if (this.#bytes > EPOCH_BYTES_MAX) await this.#beginEpoch()
      } catch (error) {
        for (const { failed } of batch) failed(error)
      }
    }
    this.#writing = undefined
  }

  /** A new file with everything still needed; the old ones go only when it is durable. */
  async #beginEpoch(): Promise<void> {
    const old = (await readdir(this.#dir)).filter((name) => name.endsWith('.journal'))
    const epoch = randomUUID()
    const name = `${String(Date.now()).padStart(15, '0')}-${epoch}.journal`
    const file = await open(join(this.#dir, name), 'a', 0o600)
    const lines = [
      ...[...this.#state.closed.values()].map((receipt) => toLine({ type: 'close', receipt })),
      ...[...this.#state.open.values()].map((run) => toLine({ type: 'open', run })),
      ...[...this.#state.open.values()].flatMap((run) =>
        run.outputTokens === undefined ? [] : [toLine({ type: 'progress', run: progressSchema.parse(run) })],
      ),
    ]
    await file.appendFile(lines.join(''))
    await file.sync()
    const previous = this.#file
    this.#file = file
    this.#epoch = epoch
    this.#seq = 0
    this.#bytes = 0
    await previous?.close()
    await Promise.all(old.map((stale) => unlink(join(this.#dir, stale))))
  }
}
