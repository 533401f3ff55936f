// The node's tie to the edge: registers with the join token, keeps the dispatch secret, beats every few seconds, and
// registers again when the edge has forgotten it, but not when an operator has removed it.
import { statusOf } from '../schema/errors.ts'
import { HEARTBEAT_SECONDS } from '../schema/limits.ts'
import { parseJson, utf8 } from '../schema/text.ts'
import { beatenSchema, type Load, PATHS, type Registration, registeredSchema, removedSchema } from '../schema/wire.ts'
import { backoffMs } from './backoff.ts'
import type { Identity } from './identity.ts'
import { log, reasonOf } from './log.ts'

const CALL_TIMEOUT_MS = 10_000
const FIRST_CONTACT_MS = 500
/** A secret that was replaced: some isolates of the edge sign with it until its new version is everywhere. */
const FORMER_KEPT_MS = 60_000

export interface EdgeLinkOptions {
  readonly edgeUrl: string
  readonly joinToken: string
  readonly identity: Identity
  readonly registration: Omit<Registration, 'nodeId' | 'publicKey' | 'load'>
  readonly load: () => Load
  readonly isDraining: () => boolean
  readonly onRegistered: () => void
  /** Receipts are all that the edge takes from now on. */
  readonly onRemoved: () => void
}

export class EdgeLink {
  readonly #options: EdgeLinkOptions
  #secret: Uint8Array | undefined
  #former: { readonly secret: Uint8Array; readonly until: number } | undefined
  #registered = false
  #removed = false
  #intervalMs = HEARTBEAT_SECONDS * 1000
  #failures = 0
  #timer: NodeJS.Timeout | undefined
  #working: Promise<void> | undefined
  #stopped = false

  constructor(options: EdgeLinkOptions) {
    this.#options = options
  }

  /** Keys of the edge's calls to this node, the present one first; none before the first registration. */
  get dispatchKeys(): readonly Uint8Array[] {
    const former = this.#former && performance.now() < this.#former.until ? [this.#former.secret] : []
    return this.#secret ? [this.#secret, ...former] : []
  }

  get registered(): boolean {
    return this.#registered
  }

  /** Registers or beats now, and from then on by itself. */
  beat(): Promise<void> {
    clearTimeout(this.#timer)
    this.#working ??= this.#once().finally(() => {
      this.#working = undefined
      // Edge and node are often started together: until the first registration the node asks again soon.
      const longest = this.#secret ? this.#intervalMs : FIRST_CONTACT_MS
      const delay = this.#failures > 0 ? Math.min(backoffMs(this.#failures), longest) : this.#intervalMs
      if (!this.#stopped && !this.#removed) this.#timer = setTimeout(() => void this.beat(), delay)
    })
    return this.#working
  }

  /** The edge does not know us: register at the next turn. */
  forgotten(): void {
    if (!this.#registered) return
    this.#registered = false
    void this.beat()
  }

  /** Last word to the edge: no more requests. Best effort; without it we are stale soon anyway. */
  async drain(): Promise<void> {
    await this.#working
    await this.beat()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#working
  }

  async #once(): Promise<void> {
    if (this.#removed) return
    try {
      if (!this.#registered) await this.#register()
      else await this.#heartbeat()
      this.#failures = 0
    } catch (error) {
      this.#failures++
      // Every failure at first, then ever fewer: a night without an edge must not fill a disk.
      if ((this.#failures & (this.#failures - 1)) === 0) {
        log('warn', this.#registered ? 'heartbeat_failed' : 'registration_failed', { error: reasonOf(error) })
      }
    }
  }

  #post(path: string, authorization: string, body: Uint8Array<ArrayBuffer>): Promise<Response> {
    return fetch(new URL(path, this.#options.edgeUrl), {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json' },
      body,
      signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
    })
  }

  /** True when the edge says that it never wants to hear of this node again. */
  #isRemoval({ status }: Response, text: string): boolean {
    // The code too: what stands between may answer by the same status.
    if (status !== statusOf('node_removed') || !removedSchema.safeParse(parseJson(text)).success) return false
    this.#removed = true
    this.#registered = false
    const advice = 'stop it when sparrow_journal_pending is 0; a node on another SPARROW_STATE_DIR may join'
    log('error', 'node_removed', { node: this.#options.identity.nodeId, advice })
    this.#options.onRemoved()
    return true
  }

  #learn(dispatchSecret: string): void {
    const secret = utf8(dispatchSecret)
    const before = this.#secret
    if (before && Buffer.compare(before, secret) === 0) return
    if (before) this.#former = { secret: before, until: performance.now() + FORMER_KEPT_MS }
    this.#secret = secret
  }

  async #register(): Promise<void> {
    // A draining node that the edge forgot has nothing to register for.
    if (this.#options.isDraining()) return
    const { identity, registration, joinToken, load } = this.#options
    const { nodeId, publicKey } = identity
    const body = JSON.stringify({ ...registration, nodeId, publicKey, load: load() })
    const response = await this.#post(PATHS.register, `Bearer ${joinToken}`, new TextEncoder().encode(body))
    const text = await response.text()
    if (this.#isRemoval(response, text)) return
    if (!response.ok) throw new Error(`the edge refused the registration: ${response.status} ${text.slice(0, 300)}`)
    const { dispatchSecret, heartbeatSeconds } = registeredSchema.parse(JSON.parse(text))
    this.#learn(dispatchSecret)
    this.#intervalMs = heartbeatSeconds * 1000
    this.#registered = true
    log('info', 'registered', { node: nodeId })
    this.#options.onRegistered()
  }

  async #heartbeat(): Promise<void> {
    const { identity, isDraining, load } = this.#options
    const body = new TextEncoder().encode(
      JSON.stringify({ nodeId: identity.nodeId, draining: isDraining(), load: load() }),
    )
    const response = await this.#post(PATHS.heartbeat, await identity.sign(body), body)
    const text = await response.text()
    if (this.#isRemoval(response, text)) return
    if (response.status === 401 || response.status === 404) this.#registered = false
    if (!response.ok) throw new Error(`the edge answered ${response.status} to a heartbeat`)
    const { data } = beatenSchema.safeParse(parseJson(text))
    if (data?.dispatchSecret !== undefined) this.#learn(data.dispatchSecret)
  }
}
