// A fleet on paper: each node prefills one prompt after the other, decodes all it has, and keeps an LRU cache of prompt blocks. The
// router under test sees what the real one sees: heartbeats every five seconds and its own count of runs; its index never hears
// of evictions.
import { InFlight } from '../../../edge/in_flight.ts'
import { type Candidate, prefillMs, route } from '../../../edge/router.ts'
import { percentile } from '../statistics.ts'
import { BLOCK_TOKENS, type Request, random } from './trace.ts'

export const POLICIES = ['sparrow', 'round-robin', 'least-loaded', 'hash of session', 'hash of prefix'] as const
export type Policy = (typeof POLICIES)[number]

export interface FleetOptions {
  readonly nodes: number
  /** Prompt tokens a node keeps. */
  readonly cacheTokens: number
  readonly prefillTokensPerSecond: number
  readonly decodeTokensPerSecond: number
}

export interface Outcome {
  readonly policy: Policy
  /** Cached prompt tokens of all prompt tokens. */
  readonly hitRate: number
  /** Most loaded node against the mean, in milliseconds of work accepted and not done, sampled every second: 99th percentile. */
  readonly imbalanceP99: number
  /** The same in runs under way. */
  readonly runsImbalanceP99: number
  readonly ttftP50Ms: number
  readonly ttftP99Ms: number
}

interface Run {
  readonly node: SimNode
  readonly blocks: readonly string[]
  readonly prefillFrom: number
  readonly firstToken: number
  readonly end: number
  answered(): void
  ended(now: number): void
}

class SimNode {
  readonly id: string
  readonly cache = new Map<string, true>()
  readonly runs = new Set<Run>()
  prefillFree = 0
  heartbeat = { at: 0, running: 0, waiting: 0 }

  constructor(id: string) {
    this.id = id
  }

  cachedBlocks(blocks: readonly string[]): number {
    let n = 0
    while (n < blocks.length && this.cache.has(blocks[n] ?? '')) n++
    return n
  }

  touch(blocks: readonly string[], limit: number): void {
    for (const block of blocks) {
      this.cache.delete(block)
      this.cache.set(block, true)
    }
    for (const block of this.cache.keys()) {
      if (this.cache.size <= limit) break
      this.cache.delete(block)
    }
  }

  /** Prefill still to do, and a share of a step for each run, as the router weighs them. */
  backlogMs(now: number): number {
    return Math.max(0, this.prefillFree - now) + this.runs.size * 25
  }
}

const hash = (text: string): number => {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  return (h ^ (h >>> 13)) >>> 0
}

/** One policy over one trace. */
export class Simulation {
  readonly #nodes: SimNode[]
  readonly #options: FleetOptions
  readonly #policy: Policy
  /** Which nodes receipts named for a block. */
  readonly #index = new Map<string, Set<string>>()
  readonly #flights = new InFlight()
  readonly #ttft: number[] = []
  readonly #work: number[] = []
  readonly #runs: number[] = []
  /** Load is sampled while sessions come, not while the last ones end. */
  readonly #steady: { readonly from: number; readonly to: number }
  #hit = 0
  #prompt = 0
  #turn = 0
  #sampledAt = 0

  constructor(policy: Policy, options: FleetOptions, spanMs: number) {
    this.#policy = policy
    this.#steady = { from: spanMs * 0.1, to: spanMs }
    this.#options = options
    this.#nodes = Array.from({ length: options.nodes }, (_, i) => new SimNode(`node-${i}`))
  }

  run(requests: readonly Request[]): Outcome {
    const heartbeats = random(11)
    for (const node of this.#nodes) node.heartbeat.at = -heartbeats() * 5000
    for (const request of requests) {
      this.#advance(request.at)
      this.#serve(request, this.#choose(request))
    }
    return {
      policy: this.#policy,
      hitRate: this.#hit / this.#prompt,
      imbalanceP99: percentile(this.#work, 0.99),
      runsImbalanceP99: percentile(this.#runs, 0.99),
      ttftP50Ms: percentile(this.#ttft, 0.5),
      ttftP99Ms: percentile(this.#ttft, 0.99),
    }
  }

  #advance(now: number): void {
    for (const node of this.#nodes) {
      for (const run of node.runs) {
        if (run.firstToken <= now) run.answered()
        if (run.end > now) continue
        node.runs.delete(run)
        run.ended(run.end)
        for (const block of run.blocks) {
          const holders = this.#index.get(block) ?? new Set()
          this.#index.set(block, holders.add(node.id))
        }
      }
      if (now - node.heartbeat.at >= 5000) {
        const waiting = [...node.runs].filter((run) => run.prefillFrom > now).length
        const at = now - ((now - node.heartbeat.at) % 5000)
        node.heartbeat = { at, running: node.runs.size - waiting, waiting }
      }
    }
    if (now - this.#sampledAt < 1000 || now < this.#steady.from || now > this.#steady.to) return
    this.#sampledAt = now
    this.#sample(this.#work, (node) => node.backlogMs(now))
    this.#sample(this.#runs, (node) => node.runs.size)
  }

  #sample(into: number[], of: (node: SimNode) => number): void {
    const loads = this.#nodes.map(of)
    const mean = loads.reduce((a, b) => a + b, 0) / loads.length
    if (mean > 0) into.push(Math.max(...loads) / mean)
  }

  #choose(request: Request): SimNode {
    const nodes = this.#nodes
    const at = (i: number): SimNode => nodes[i % nodes.length] as SimNode
    if (this.#policy === 'round-robin') return at(this.#turn++)
    if (this.#policy === 'least-loaded') return nodes.reduce((a, b) => (b.runs.size < a.runs.size ? b : a))
    if (this.#policy !== 'sparrow') {
      const key = this.#policy === 'hash of session' ? `c${request.session}` : (request.blocks[0] ?? '')
      const weights = nodes.map(({ id }) => hash(`${key}/${id}`))
      return at(weights.indexOf(Math.max(...weights)))
    }
    const candidates = nodes.map((node) => this.#candidate(node, request))
    const demand = { promptTokens: request.promptTokens, affinity: request.blocks[0] ?? `c${request.session}` }
    const now = request.at
    const ownLoad = (c: Candidate) => this.#flights.since(c.id, c.heartbeatAt, now)
    const best = route(candidates, demand, { now, isOpen: () => false, ownLoad })[0]
    return nodes.find(({ id }) => id === best?.id) as SimNode
  }

  #candidate({ id, heartbeat }: SimNode, { blocks, at }: Request): Candidate {
    let known = 0
    while (known < blocks.length && this.#index.get(blocks[known] ?? '')?.has(id)) known++
    return {
      ...{ id, address: '', running: heartbeat.running, waiting: heartbeat.waiting, kvPages: 0, kvPagesUsed: 0 },
      ...{
        prefillTokensPerSecond: this.#options.prefillTokensPerSecond,
        heartbeatAt: Math.max(heartbeat.at, at - 14_000),
      },
      ...{ contextTokens: 131_072, hitTokens: known * BLOCK_TOKENS },
    }
  }

  #serve(request: Request, node: SimNode): void {
    const { prefillTokensPerSecond, decodeTokensPerSecond, cacheTokens } = this.#options
    const hit = Math.min(node.cachedBlocks(request.blocks) * BLOCK_TOKENS, request.promptTokens - 1)
    const work = prefillMs({ prefillTokensPerSecond }, request.promptTokens - hit)
    const prefillFrom = Math.max(request.at, node.prefillFree)
    const firstToken = prefillFrom + work
    node.prefillFree = firstToken
    const flight = this.#flights.begin(node.id, request.at, work)
    const run: Run = {
      ...{ node, blocks: request.blocks, prefillFrom, firstToken },
      end: firstToken + (request.outputTokens / decodeTokensPerSecond) * 1000,
      answered: () => flight.answered(),
      ended: (now) => flight.ended(now),
    }
    node.runs.add(run)
    node.touch(request.blocks, cacheTokens / BLOCK_TOKENS)
    this.#hit += hit
    this.#prompt += request.promptTokens
    this.#ttft.push(firstToken - request.at)
  }
}
