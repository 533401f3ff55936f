// Metered runs with faults at every step between a run's admission and its row in the ledger. Rounds of one node follow one another;
// nodes, deliveries and outboxes overlap.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Closing } from '../../../gpu-node/journal.ts'
import { NO_COUNTS } from '../../../gpu-node/journal_records.ts'
import { FINISH_REASONS } from '../../../schema/wire.ts'
import { random } from '../router/trace.ts'
import { type Faults, isInjected, turns } from './faults.ts'
import { type Life, SimulatedNode } from './node.ts'
import { ATTEMPTS_MAX, requestIdOf, type Truth } from './truth.ts'
import { accountIdOf, keyIdOf, MODEL, untilDone, type World } from './world.ts'

const ROUND_RUNS = 100
/** With more receipts than this under way a node takes no new round. */
const PENDING_MAX = 400
const PROGRESS_TOKENS = 64
/** Turns of the event loop within which a round's kill falls. */
const KILL_TURNS = 60
const ALARM_ROUNDS = 40
const DELIVERY_MS = 60_000
/** Prompt tokens said to lie on another node. */
const OVERLAP_TOKENS = 640

interface Work {
  readonly run: number
  readonly attempt: number
}

export interface SimulationOptions {
  readonly runs: number
  readonly seed: number
  readonly accounts: number
  readonly nodes: number
  readonly dir: string
  readonly world: World
  readonly faults: Faults
  readonly truth: Truth
}

/** What a run asks for and uses, the same whenever it is asked. */
const planOf = (seed: number, run: number) => {
  const next = random(seed * 7919 + run)
  const below = (n: number): number => Math.floor(next() * n)
  const prompt = 1 + below(1500)
  const maxTokens = 1 + below(300)
  const hit = 64 * below(Math.floor((prompt - 1) / 64) + 1)
  const finish = FINISH_REASONS[below(4)] ?? 'stop'
  return { hit, miss: prompt - hit, output: below(maxTokens + 1), promptBytes: prompt * 4, maxTokens, finish }
}

export class Simulation {
  readonly #o: SimulationOptions
  readonly #nodes: SimulatedNode[]
  readonly #handedOver: Work[][]
  #next = 0
  #rounds = 0
  refused = 0

  constructor(options: SimulationOptions) {
    const { nodes, dir, world, faults, truth } = options
    this.#o = options
    this.#nodes = Array.from(
      { length: nodes },
      (_, i) => new SimulatedNode({ id: `node-${i}`, dir, world, faults, truth }),
    )
    this.#handedOver = this.#nodes.map(() => [])
  }

  /** Ends when every run was tried and every receipt and outbox row has had its chance to arrive; false when a receipt is still waiting. */
  async run(onRound: (started: number) => void): Promise<boolean> {
    const { runs, faults, world } = this.#o
    faults.on = true
    while (this.#next < runs || this.#handedOver.some((works) => works.length > 0)) {
      await Promise.all(this.#nodes.map((node, i) => this.#work(node, i, onRound)))
    }
    faults.on = false
    const delivered = await Promise.all(this.#nodes.map((node) => this.#deliver(node, 0)))
    // Any alarm that is set is due within the hour; one of them may set another.
    for (let i = 1; i <= 2; i++) await world.alarms(Date.now() + i * 3_600_000)
    for (const node of this.#nodes) await node.stop()
    return delivered.every((whole) => whole)
  }

  async #work(node: SimulatedNode, i: number, onRound: (started: number) => void): Promise<void> {
    const queue = this.#handedOver[i] ?? []
    while (this.#next < this.#o.runs || queue.length > 0) {
      const handed = queue.splice(0, ROUND_RUNS)
      const works = [...handed, ...(await this.#admit(ROUND_RUNS - handed.length))]
      await this.#round(node, i, works)
      await this.#deliver(node, PENDING_MAX)
      if (++this.#rounds % ALARM_ROUNDS === 0) await this.#o.world.alarms()
      onRound(this.#next)
    }
  }

  async #admit(most: number): Promise<Work[]> {
    const from = this.#next
    this.#next = Math.min(this.#o.runs, from + most)
    const admitted = Array.from({ length: this.#next - from }, (_, k) => this.#admitOne(from + k))
    return (await Promise.all(admitted)).flat()
  }

  async #admitOne(run: number): Promise<Work[]> {
    const { world, faults, truth, accounts, seed } = this.#o
    const account = faults.below(accounts)
    const [object, requestId, { promptBytes, maxTokens }] = [world.object(account), requestIdOf(run), planOf(seed, run)]
    truth.account[run] = account
    const repeats = faults.happens('client_repeats')
    if (repeats) truth.mayCredit[run] = 1
    try {
      const answer = await object.admit({
        ...{ requestId, keyHash: keyIdOf(account), model: MODEL, promptBytes, maxTokens, ip: null },
        ...{ fingerprint: repeats ? `body-${account}` : null, idempotencyKey: null, trail: null, isRetry: repeats },
      })
      if (answer.kind !== 'admitted') {
        this.refused++
        return []
      }
    } catch (error) {
      // Whether the run is held the edge cannot know: the client gets an error, no node is asked. A machine that stood still for a second
      // has let prices grow a simulated minute old while they were read.
      if (isInjected(error) || (error instanceof Error && error.message === 'D1 gave the prices too late')) return []
      throw error
    }
    truth.attempt[run] = 1
    if (faults.happens('sent_elsewhere')) {
      truth.mayCredit[run] = 1
      await untilDone(async () => object.setOverlap(requestId, OVERLAP_TOKENS))
    }
    if (faults.happens('edge_answered_error')) {
      await untilDone(async () => object.release(requestId))
      truth.isVoid[run] = 1
    }
    return [{ run, attempt: 1 }]
  }

  async #round(node: SimulatedNode, i: number, works: readonly Work[]): Promise<void> {
    const { faults, truth } = this.#o
    const life = await node.alive()
    const spoke = new Set<Work>()
    const kill = faults.happens('node_killed_in_round')
      ? turns(faults.below(KILL_TURNS)).then(() => node.kill(life))
      : undefined
    await Promise.all(works.map((work) => this.#compute(life, i, work, spoke)))
    await kill
    life.shipper.notify()
    if (!life.dead) return
    for (const work of works) {
      const isHere = truth.attempt[work.run] === work.attempt
      if (isHere && !spoke.has(work) && faults.happens('run_moved_after_kill')) await this.#move(i, work)
    }
  }

  async #compute(life: Life, i: number, work: Work, spoke: Set<Work>): Promise<void> {
    const { faults, truth, seed } = this.#o
    const { hit, miss, output, finish } = planOf(seed, work.run)
    const account = truth.account[work.run] ?? 0
    const key = { requestId: requestIdOf(work.run), attempt: work.attempt }
    const close = async (closing: Closing): Promise<void> => {
      const receipt = await life.journal.close(key, closing)
      if (!life.dead) truth.closed(receipt)
    }
    try {
      const openedAt = Date.now()
      await life.journal.open({
        ...key,
        accountId: accountIdOf(account),
        keyId: keyIdOf(account),
        model: MODEL,
        openedAt,
      })
      if (life.dead) return
      if (work.attempt < ATTEMPTS_MAX && faults.happens('run_failed_at_node')) {
        await close({ finish: 'error', prefix: [], counts: NO_COUNTS })
        return this.#move(i, work)
      }
      spoke.add(work)
      const counts = { hit, miss, output, reasoning: 0, firstTokenAt: openedAt }
      for (let done = PROGRESS_TOKENS; done < output; done += PROGRESS_TOKENS) {
        life.journal.progress(key, { ...counts, output: done })
        await turns(faults.below(3))
        if (life.dead) return
      }
      await close({ finish, prefix: [], counts })
    } catch (error) {
      if (!life.dead) throw error
    }
  }

  /** The edge asks another node, which counts from now on. */
  async #move(i: number, { run, attempt }: Work): Promise<void> {
    const { world, truth } = this.#o
    if (attempt === ATTEMPTS_MAX) return
    const to = (i + 1) % this.#nodes.length
    const failed = { attempt, nodeId: `node-${i}`, code: 'node_unreachable' }
    const object = world.object(truth.account[run] ?? 0)
    await untilDone(async () => object.setAttempt(requestIdOf(run), `node-${to}`, failed, 0))
    truth.attempt[run] = attempt + 1
    this.#handedOver[to]?.push({ run, attempt: attempt + 1 })
  }

  /** Until at most `most` receipts wait; the node hears of the edge all the time, so that it never backs off for long. */
  async #deliver(node: SimulatedNode, most: number): Promise<boolean> {
    const deadline = performance.now() + DELIVERY_MS
    for (;;) {
      const { journal, shipper } = await node.alive()
      if (journal.pending.size <= most) return true
      if (performance.now() > deadline) return false
      shipper.edgeIsBack()
      await sleep(5)
    }
  }
}
