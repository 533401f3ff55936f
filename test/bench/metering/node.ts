// A node of the simulation without an engine: the real journal, chain and shipper in a directory of their own. To kill it is to copy the
// directory as it stands at that moment and to go on from the copy; what the dead one still writes goes nowhere.
import { cpSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { SegmentChain } from '../../../gpu-node/chain.ts'
import { loadIdentity } from '../../../gpu-node/identity.ts'
import { Journal } from '../../../gpu-node/journal.ts'
import { Shipper } from '../../../gpu-node/shipper.ts'
import { type Faults, InjectedFault } from './faults.ts'
import type { Truth } from './truth.ts'
import type { World } from './world.ts'

/** Small, so that journals rotate often. */
const ROTATE_BYTES = 512 * 1024
/** Segments that the network keeps back to deliver them once more, later. */
const KEPT_BACK = 8

export interface NodeOptions {
  readonly id: string
  readonly dir: string
  readonly world: World
  readonly faults: Faults
  readonly truth: Truth
}

/** One life of a node, from start to kill. */
export interface Life {
  readonly journal: Journal
  readonly shipper: Shipper
  dead: boolean
}

/** The directory is read file by file while the dying node may replace one: then once more. */
const copyDirectory = (from: string, to: string): void => {
  for (;;) {
    try {
      rmSync(to, { recursive: true, force: true })
      cpSync(from, to, { recursive: true })
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
}

export class SimulatedNode {
  readonly #options: NodeOptions
  readonly #keptBack: Request[] = []
  #generation = 0
  #life: Life | undefined
  isKnown = false

  constructor(options: NodeOptions) {
    this.#options = options
  }

  get id(): string {
    return this.#options.id
  }

  /** The running life; a dead one is taken away and its successor started. */
  async alive(): Promise<Life> {
    const last = this.#life
    if (last && !last.dead) return last
    if (last) {
      await last.shipper.stop()
      await last.journal.stop()
      rmSync(this.#directory(this.#generation - 1), { recursive: true })
    }
    this.#life = await this.#start()
    return this.#life
  }

  async stop(): Promise<void> {
    const { shipper, journal } = await this.alive()
    await shipper.stop()
    await journal.stop()
  }

  kill(life: Life): void {
    if (life.dead) return
    life.dead = true
    copyDirectory(this.#directory(this.#generation), this.#directory(this.#generation + 1))
    this.#generation++
  }

  #directory(generation: number): string {
    return join(this.#options.dir, `${this.id}-${generation}`)
  }

  async #start(): Promise<Life> {
    const { id, world, truth } = this.#options
    const dir = this.#directory(this.#generation)
    const identity = await loadIdentity(dir, id)
    if (!this.isKnown) world.addNode(id, identity.publicKey)
    this.isKnown = true
    const onFailure = (error: unknown): never => {
      throw error
    }
    const journal = await Journal.start({
      ...{ dir: join(dir, 'journal'), nodeId: id, onFailure, rotateBytes: ROTATE_BYTES },
    })
    for (const receipt of journal.pending.values()) truth.closed(receipt)
    const chain = await SegmentChain.load(dir, id)
    const shipper = new Shipper({
      ...{ edgeUrl: 'http://edge.invalid', identity, journal, chain, onUnknown: () => {}, onSettled: () => {} },
      deadLetterFile: join(this.#options.dir, 'refused_receipts.jsonl'),
      fetch: (url, init) => this.#send(life, String(url), init),
    })
    const life: Life = { journal, shipper, dead: false }
    return life
  }

  /** The network between this node and the edge. */
  async #send(life: Life, url: string, init: RequestInit | undefined): Promise<Response> {
    const { world, faults } = this.#options
    const died = (): InjectedFault => new InjectedFault('the node is dead')
    if (life.dead) throw died()
    if (faults.happens('node_killed_before_sending')) this.kill(life)
    if (life.dead) throw died()
    faults.throwIf('request_lost')
    const { signal: _, ...rest } = init ?? {}
    const request = new Request(url, rest)
    if (this.#keptBack.length < KEPT_BACK) this.#keptBack.push(request.clone())
    const old = faults.happens('old_segment_again') ? this.#keptBack.splice(faults.below(KEPT_BACK), 1) : []
    const twice = faults.happens('request_twice') ? [request.clone()] : []
    const calls = [...old, ...twice].map((each) => world.fetch(each))
    const answer = await world.fetch(request)
    await Promise.all(calls)
    if (faults.happens('node_killed_before_answer')) this.kill(life)
    if (life.dead) throw died()
    faults.throwIf('answer_lost')
    return answer
  }
}
