// Sends closed receipts to the edge, signed, in small segments, again and again until each is acknowledged. A receipt the
// edge refuses for ever goes to a dead-letter file and the log, never away.
import { open } from 'node:fs/promises'
import { signReceipt } from '../schema/receipt.ts'
import { utf8 } from '../schema/text.ts'
import { PATHS, type Receipt, type SegmentAck, segmentAckSchema, segmentSchema } from '../schema/wire.ts'
import { backoffMs } from './backoff.ts'
import type { SegmentChain } from './chain.ts'
import type { Identity } from './identity.ts'
import type { Journal } from './journal.ts'
import { keyOf } from './journal_records.ts'
import { log, reasonOf } from './log.ts'

const SEGMENT_RECEIPTS = 100
/** A receipt with all its prefix blocks can have 300 KB; a segment stays a modest request. */
const SEGMENT_BYTES = 512 * 1024
/** Lets receipts that close together share a call; well below what a balance's reader would notice. */
const GATHER_MS = 20
/** Segments that are not full begin at least so far apart: under load four a second settle all that closed meanwhile.
 * Each costs the edge an object in R2 and two statements in D1; a caller at its limits waits for one. */
const SEGMENT_SPACING_MS = 250
const CALL_TIMEOUT_MS = 15_000

export interface ShipperOptions {
  readonly edgeUrl: string
  readonly identity: Pick<Identity, 'privateKey' | 'sign'>
  readonly journal: Pick<Journal, 'pending' | 'acknowledge'>
  readonly chain: Pick<SegmentChain, 'unconfirmed' | 'seal' | 'confirm' | 'restart'>
  readonly deadLetterFile: string
  /** The edge does not know this node (any more). */
  readonly onUnknown: () => void
  readonly onSettled: (outcome: 'acknowledged' | 'refused', count: number) => void
  /** How the edge is called; the network unless told. */
  readonly fetch?: typeof fetch
}

interface Retry {
  tries: number
  /** `performance.now()`: a clock that steps back puts nothing off. */
  notBefore: number
}

export class Shipper {
  readonly #options: ShipperOptions
  /** Receipts that a successful call left unsettled, with their own back-off, so that they hold up no others. */
  readonly #deferred = new Map<string, Retry>()
  #timer: NodeJS.Timeout | undefined
  /** When the timer ends. */
  #dueAt = 0
  #sending: Promise<void> | undefined
  #failures = 0
  /** When the last segment left. */
  #sentAt = Number.NEGATIVE_INFINITY
  #stopped = false

  constructor(options: ShipperOptions) {
    this.#options = options
  }

  /** Something was closed: send soon. While the edge fails, its back-off goes on. */
  notify(): void {
    if (this.#failures === 0) this.#schedule(this.#pause())
  }

  /** The edge is back: forget the back-off. */
  edgeIsBack(): void {
    this.#failures = 0
    this.#deferred.clear()
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#options.journal.pending.size > 0) this.#schedule(0)
  }

  /** Sends until nothing is pending or `deadlineMs` have passed; true when nothing is. */
  async flush(deadlineMs: number): Promise<boolean> {
    const deadline = performance.now() + deadlineMs
    while (this.#options.journal.pending.size > 0 && performance.now() < deadline && !this.#stopped) {
      this.#deferred.clear()
      await this.#run()
      if (this.#options.journal.pending.size > 0) await new Promise((done) => setTimeout(done, 200))
    }
    return this.#options.journal.pending.size === 0
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#sending
  }

  #pause(): number {
    return Math.max(GATHER_MS, this.#sentAt + SEGMENT_SPACING_MS - performance.now())
  }

  /** The earliest wish counts: what closes does not wait for one that is put off. */
  #schedule(delay: number): void {
    const dueAt = performance.now() + delay
    if (this.#stopped || (this.#timer && this.#dueAt <= dueAt)) return
    clearTimeout(this.#timer)
    this.#dueAt = dueAt
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.#run()
    }, delay)
  }

  #run(): Promise<void> {
    this.#sending ??= this.#sendDue().finally(() => {
      this.#sending = undefined
      const delay = this.#nextDelay()
      if (delay !== undefined) this.#schedule(delay)
    })
    return this.#sending
  }

  #nextDelay(): number | undefined {
    const { pending } = this.#options.journal
    if (pending.size === 0) return undefined
    if (this.#failures > 0) return backoffMs(this.#failures)
    if (pending.size > this.#deferred.size) return this.#pause()
    return Math.max(
      this.#pause(),
      Math.min(...[...this.#deferred.values()].map((r) => r.notBefore)) - performance.now(),
    )
  }

  /** What closes meanwhile waits for the next turn, unless it fills a segment. */
  async #sendDue(): Promise<void> {
    for (let more = true; more && !this.#stopped; ) {
      const { due, full } = this.#due()
      if (due.length === 0) return
      more = full
      this.#sentAt = performance.now()
      try {
        await this.#send(due)
        this.#failures = 0
      } catch (error) {
        this.#failures++
        log('warn', 'receipts_not_delivered', { receipts: due.length, tries: this.#failures, error: reasonOf(error) })
        return
      }
    }
  }

  #due(): { due: Receipt[]; full: boolean } {
    const due: Receipt[] = []
    let full = false
    let bytes = 0
    const now = performance.now()
    for (const [key, receipt] of this.#options.journal.pending) {
      if ((this.#deferred.get(key)?.notBefore ?? 0) > now) continue
      bytes += 1000 + receipt.prefix.length * 36
      full = due.length > 0 && bytes > SEGMENT_BYTES
      if (full) break
      due.push(receipt)
      full = due.length === SEGMENT_RECEIPTS
      if (full) break
    }
    return { due, full }
  }

  /** Sends the segment that was sealed and not confirmed, if there is one; else seals what is due. */
  async #send(due: readonly Receipt[]): Promise<void> {
    const { identity, chain } = this.#options
    const sealed =
      chain.unconfirmed ??
      (await chain.seal(await Promise.all(due.map((receipt) => signReceipt(identity.privateKey, receipt)))))
    const sent = segmentSchema.parse(JSON.parse(sealed)).receipts.map(({ receipt }) => receipt)
    const ack = await this.#call(sealed)
    await chain.confirm()
    await this.#settle(sent, ack)
  }

  async #call(sealed: string): Promise<SegmentAck> {
    const { identity, edgeUrl, chain, fetch: call = fetch } = this.#options
    const body = utf8(sealed)
    const response = await call(new URL(PATHS.receipts, edgeUrl), {
      method: 'POST',
      headers: { authorization: await identity.sign(body), 'content-type': 'application/json' },
      body,
      signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
    })
    const text = await response.text()
    // A 401 is a clock that is wrong: to register again would mend nothing, and forget the back-off.
    if (response.status === 404) this.#options.onUnknown()
    if (response.status === 409) await chain.restart()
    if (!response.ok) throw new Error(`the edge answered ${response.status}: ${text.slice(0, 200)}`)
    return segmentAckSchema.parse(JSON.parse(text))
  }

  async #settle(sent: readonly Receipt[], ack: SegmentAck): Promise<void> {
    const { journal, onSettled } = this.#options
    // Only what was sent, and is pending still, can be settled; an answer that names anything else is ignored.
    const receipts = new Map(sent.map((receipt) => [keyOf(receipt), receipt]))
    for (const key of receipts.keys()) if (!journal.pending.has(key)) receipts.delete(key)
    const refused = ack.refused.filter((entry) => receipts.has(keyOf(entry)))
    await this.#bury(refused.map((entry) => ({ reason: entry.reason, receipt: receipts.get(keyOf(entry)) })))
    const acknowledged = ack.acknowledged.filter((entry) => receipts.has(keyOf(entry)))
    for (const entry of [...acknowledged, ...refused]) {
      journal.acknowledge(entry)
      this.#deferred.delete(keyOf(entry))
      receipts.delete(keyOf(entry))
    }
    for (const key of receipts.keys()) {
      const tries = (this.#deferred.get(key)?.tries ?? 0) + 1
      this.#deferred.set(key, { tries, notBefore: performance.now() + backoffMs(tries) })
    }
    onSettled('acknowledged', acknowledged.length)
    onSettled('refused', refused.length)
  }

  async #bury(letters: readonly { reason: string; receipt: Receipt | undefined }[]): Promise<void> {
    if (letters.length === 0) return
    const file = await open(this.#options.deadLetterFile, 'a', 0o600)
    try {
      await file.appendFile(letters.map((letter) => `${JSON.stringify(letter)}\n`).join(''))
      await file.sync()
    } finally {
      await file.close()
    }
    for (const { reason, receipt } of letters) log('error', 'receipt_refused', { reason, request: receipt?.requestId })
  }
}
