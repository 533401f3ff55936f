// The node's side of the edge: registration, heartbeats, receipts pushed until acknowledged. All calls are signed with the
// node's own key, except the first, which carries the join token.
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { signReceipt } from '../schema/receipt.ts'
import { signCall } from '../schema/signature.ts'
import { utf8 } from '../schema/text.ts'
import {
  type Heartbeat,
  type Load,
  PATHS,
  type Receipt,
  type Registered,
  type Registration,
  registeredSchema,
  type Segment,
  segmentAckSchema,
} from '../schema/wire.ts'
import type { Identity } from './identity.ts'
import type { Journal } from './journal.ts'
import type { Metrics } from './metrics.ts'

const SEGMENT_RECEIPTS = 100
const RETRY_FIRST_MS = 100
const RETRY_MAX_MS = 5_000
const CALL_TIMEOUT_MS = 10_000

export interface EdgeLinkOptions {
  readonly edgeUrl: string
  readonly joinToken: string
  readonly stateDir: string
  readonly identity: Identity
  readonly journal: Journal
  readonly metrics: Metrics
  readonly registration: Omit<Registration, 'load'>
  readonly load: () => Load
}

const log = (event: string, fields: Record<string, unknown> = {}): void =>
  console.log(JSON.stringify({ time: new Date().toISOString(), event, ...fields }))

/** Ends early, without complaint, when `signal` aborts. */
const sleep = (ms: number, signal: AbortSignal): Promise<void> => delay(ms, undefined, { signal }).catch(() => {})

export class EdgeLink {
  readonly #o: EdgeLinkOptions
  readonly #stop = new AbortController()
  #registered: Registered | undefined
  #draining = false
  #shipping: Promise<void> | undefined
  #heart: NodeJS.Timeout | undefined

  constructor(options: EdgeLinkOptions) {
    this.#o = options
  }

  /** Secret of the edge's calls to this node; undefined until registered. */
  get dispatchSecret(): string | undefined {
    return this.#registered?.dispatchSecret
  }

  /** Registers, however long the edge takes to come up; then beats until stopped. */
  async start(): Promise<void> {
    await this.#register()
    this.ship()
    const seconds = this.#registered?.heartbeatSeconds ?? 5
    this.#heart = setInterval(() => void this.#beat(), seconds * 1000)
  }

  async drain(): Promise<void> {
    this.#draining = true
    await this.#beat()
  }

  /** Sends what is pending; returns at once, one sender at a time. */
  ship(): void {
    this.#shipping ??= this.#shipAll().finally(() => {
      this.#shipping = undefined
    })
  }

  /** Waits until every receipt is acknowledged, at most `ms`. */
  async flush(ms: number): Promise<void> {
    const deadline = Date.now() + ms
    while (this.#o.journal.pendingCount > 0 && Date.now() < deadline) {
      this.ship()
      await Promise.race([this.#shipping, sleep(deadline - Date.now(), this.#stop.signal)])
    }
  }

  stop(): void {
    clearInterval(this.#heart)
    this.#stop.abort()
  }

  async #register(): Promise<void> {
    const body = { ...this.#o.registration, load: this.#o.load() }
    for (let wait = RETRY_FIRST_MS; !this.#stop.signal.aborted; wait = Math.min(wait * 2, RETRY_MAX_MS)) {
      const answer = await this.#post(PATHS.register, utf8(JSON.stringify(body)), `Bearer ${this.#o.joinToken}`)
      const parsed = registeredSchema.safeParse(answer.body)
      if (answer.status === 200 && parsed.success) {
        this.#registered = parsed.data
        return log('registered', { node: this.#o.identity.nodeId, edge: this.#o.edgeUrl })
      }
      if (answer.status !== 0) log('registration_refused', { status: answer.status, body: answer.body })
      await sleep(wait, this.#stop.signal)
    }
  }

  async #beat(): Promise<void> {
    const { nodeId } = this.#o.identity
    const beat: Heartbeat = { nodeId, draining: this.#draining, load: this.#o.load() }
    const { status } = await this.#signed(PATHS.heartbeat, beat)
    // An edge that has forgotten us (a new database, say) learns of us again.
    if (status === 404 && !this.#draining) await this.#register()
    else if (status !== 200) log('heartbeat_failed', { status })
  }

  async #shipAll(): Promise<void> {
    let wait = RETRY_FIRST_MS
    while (!this.#stop.signal.aborted) {
      const receipts = this.#o.journal.pending(SEGMENT_RECEIPTS)
      if (receipts.length === 0) return
      const done = await this.#shipSegment(receipts)
      if (done > 0) {
        wait = RETRY_FIRST_MS
        continue
      }
      await sleep(wait * (0.5 + Math.random()), this.#stop.signal)
      wait = Math.min(wait * 2, RETRY_MAX_MS)
    }
  }

  /** How many of the receipts need not be sent again. */
  async #shipSegment(receipts: readonly Receipt[]): Promise<number> {
    const { identity, journal, metrics, stateDir } = this.#o
    const signed = await Promise.all(receipts.map((receipt) => signReceipt(identity.privateKey, receipt)))
    const segment: Segment = { nodeId: identity.nodeId, receipts: signed }
    const answer = await this.#signed(PATHS.receipts, segment)
    const ack = segmentAckSchema.safeParse(answer.body)
    if (answer.status !== 200 || !ack.success) {
      log('receipts_not_taken', { status: answer.status, pending: journal.pendingCount })
      return 0
    }
    const { acknowledged, refused } = ack.data
    for (const refusal of refused) {
      const lost = signed.find(({ receipt: r }) => r.requestId === refusal.requestId && r.attempt === refusal.attempt)
      appendFileSync(join(stateDir, 'refused-receipts.jsonl'), `${JSON.stringify({ ...refusal, ...lost })}\n`)
      log('receipt_refused', { ...refusal })
    }
    metrics.receipts.inc({ outcome: 'acknowledged' }, acknowledged.length)
    metrics.receipts.inc({ outcome: 'refused' }, refused.length)
    await journal.acknowledge([...acknowledged, ...refused])
    return acknowledged.length + refused.length
  }

  async #signed(path: string, message: object): Promise<{ status: number; body: unknown }> {
    const body = utf8(JSON.stringify(message))
    const { nodeId, privateKey } = this.#o.identity
    return this.#post(path, body, await signCall(privateKey, 'EdDSA', nodeId, 'edge', body))
  }

  /** Status 0: the edge could not be reached. */
  async #post(
    path: string,
    body: Uint8Array<ArrayBuffer>,
    authorization: string,
  ): Promise<{ status: number; body: unknown }> {
    try {
      const response = await fetch(new URL(path, this.#o.edgeUrl), {
        method: 'POST',
        headers: { authorization, 'content-type': 'application/json' },
        body,
        signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
      })
      return { status: response.status, body: await response.json().catch(() => undefined) }
    } catch {
      return { status: 0, body: undefined }
    }
  }
}
