// Routing: leave out, cost, order. Pure over a snapshot of live nodes; a wrong guess costs time, never money. What one isolate
// remembers between requests is in breaker.ts and in_flight.ts.
import { BYTES_PER_TOKEN, NODE_STALE_MS } from '../schema/limits.ts'

/** A live node as the look-up returns it: load and speed as of its last heartbeat. */
export interface Candidate {
  readonly id: string
  readonly address: string
  readonly running: number
  readonly waiting: number
  readonly kvPages: number
  readonly kvPagesUsed: number
  readonly prefillTokensPerSecond: number
  readonly heartbeatAt: number
  readonly contextTokens: number
  /** Prompt tokens the node is predicted to have cached. */
  readonly hitTokens: number
  /** The client's routing hint falls on this node (hint.ts). */
  readonly isHinted?: boolean
}

/** What this isolate sent to a node and its last heartbeat cannot know. */
export interface OwnLoad {
  /** Runs begun less runs ended since the heartbeat. */
  readonly runs: number
  /** What is left of the prefill of runs that have not answered yet. */
  readonly prefillMs: number
}

export interface Demand {
  /** Estimated prompt tokens. */
  readonly promptTokens: number
  /** Prompts that begin alike have the same: the first prefix key, or something random where there is none. */
  readonly affinity: string
}

/** Estimated; at least what a node is known to hold, or of two nodes that hold more than the estimate the one with less would seem as good. */
export const promptTokensOf = (bytes: number, candidates: readonly Pick<Candidate, 'hitTokens'>[]): number =>
  Math.max(Math.ceil(bytes / BYTES_PER_TOKEN), ...candidates.map(({ hitTokens }) => hitTokens))

/** What a run ahead of ours costs us, milliseconds: one that waits must first prefill, one that runs shares each step. */
const WAITING_MS = 250
const RUNNING_MS = 25
const PREFILL_GUESS = 1000
/** Above this share of KV pages in use, runs are paused for want of memory. */
const KV_FULL = 0.9
const KV_PRESSURE_MS = 2000
/** Nodes that differ by less are equally good, and prompts that begin alike share one of them. */
const SLACK_MS = RUNNING_MS

export const prefillMs = (node: Pick<Candidate, 'prefillTokensPerSecond'>, tokens: number): number =>
  (Math.max(0, tokens) / (node.prefillTokensPerSecond || PREFILL_GUESS)) * 1000
/** What a hint is worth: less than a run that waits, more than a few that run. */
const HINT_MS = 200

/** Milliseconds until our first token: the prefill that the cache does not save, behind what the node has to do already. */
export const cost = (node: Candidate, own: OwnLoad, promptTokens: number): number => {
  const runs = Math.max(0, node.running + node.waiting + own.runs)
  const queued = Math.max(node.waiting * WAITING_MS, own.prefillMs)
  const used = node.kvPages > 0 ? node.kvPagesUsed / node.kvPages : 0
  const pressure = used > KV_FULL ? ((used - KV_FULL) / (1 - KV_FULL)) * KV_PRESSURE_MS : 0
  const hint = node.isHinted ? HINT_MS : 0
  return prefillMs(node, promptTokens - node.hitTokens) + queued + runs * RUNNING_MS + pressure - hint
}

/** Rendezvous weight (FNV-1a, mixed): every isolate sends prompts that begin alike to the same of equally good nodes. */
const weight = (affinity: string, nodeId: string): number => {
  let hash = 0x811c9dc5
  for (const text of [affinity, '/', nodeId])
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

export interface Surroundings {
  readonly now: number
  /** True while a node's breaker is open. */
  isOpen(nodeId: string): boolean
  ownLoad(node: Candidate): OwnLoad
}

/** A node that joined has measured nothing: it is taken to be as fast as the others, or a fast fleet would leave it without a run to measure. */
const withSpeeds = (nodes: readonly Candidate[]): readonly Candidate[] => {
  const measured = nodes.flatMap(({ prefillTokensPerSecond: speed }) => (speed > 0 ? [speed] : []))
  if (measured.length === 0 || measured.length === nodes.length) return nodes
  const mean = measured.reduce((sum, speed) => sum + speed, 0) / measured.length
  return nodes.map((node) => (node.prefillTokensPerSecond > 0 ? node : { ...node, prefillTokensPerSecond: mean }))
}

/** Where a run goes, best first; stale nodes never, those behind an open breaker only where nothing else lives. */
export const route = (candidates: readonly Candidate[], demand: Demand, around: Surroundings): Candidate[] => {
  const live = withSpeeds(candidates.filter((node) => around.now - node.heartbeatAt < NODE_STALE_MS))
  const closed = live.filter((node) => !around.isOpen(node.id))
  const costed = (closed.length > 0 ? closed : live).map((node) => ({
    node,
    cost: cost(node, around.ownLoad(node), demand.promptTokens),
    weight: weight(demand.affinity, node.id),
  }))
  const best = Math.min(...costed.map((entry) => entry.cost))
  const tier = (entry: { cost: number }): number => (entry.cost <= best + SLACK_MS ? 0 : entry.cost)
  return costed.sort((a, b) => tier(a) - tier(b) || b.weight - a.weight).map(({ node }) => node)
}

/** Prompt tokens that another live node is known to hold and `chosen` is not: what the client must not pay for in full. */
export const overlapElsewhere = (candidates: readonly Candidate[], chosen: Candidate): number => {
  const most = Math.max(0, ...candidates.map(({ hitTokens }) => hitTokens))
  return most > chosen.hitTokens ? most : 0
}
