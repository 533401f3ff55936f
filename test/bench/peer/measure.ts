// Both engines loaded, taking turns: ours, peer, ours, peer. Ours fills its cache for each turn; the peer, whose filling
// is slow, fills once a depth and goes back after each measurement.
import type { MachineLimits, NativeEngine } from '../../../gpu-node/engine/native.ts'
import { argmax, logSoftmax } from '../quality.ts'
import { median } from '../statistics.ts'
import type { Peer } from './client.ts'
import { type FillSample, predictFill, type Turns } from './pairs.ts'
import type { AnswersResult } from './result.ts'

const CHUNK = 512
/** A fit to fewer chunks says too little to give a depth up. */
const SAMPLES_LEAST = 4
const TOP = 50
const PROMPTS = 7
export const BATCH_PROMPT = 256

const note = (text: string): void => console.error(`bench:peer: ${text}`)

export interface Plan {
  readonly depths: readonly number[]
  readonly prefill: number
  readonly decode: number
  readonly pairs: number
  readonly threads: number
  /** A depth that needs more seconds of filling than this is measured without the peer. */
  readonly peerSeconds: number
}

/** Fills the peer on, chunk by chunk, until `depth` or until that would take too long. */
class Filler {
  depth = 0
  private readonly peer: Peer
  private readonly limit: number
  private readonly samples: FillSample[] = []

  constructor(peer: Peer, limit: number) {
    this.peer = peer
    this.limit = limit
  }

  /** Seconds it took, or why it was left. */
  async to(depth: number): Promise<number | string> {
    let spent = 0
    while (this.depth < depth) {
      const left = predictFill(this.samples, this.depth, depth)
      if (this.samples.length >= SAMPLES_LEAST && spent + left > this.limit)
        return `filling it to ${depth} would take llama.cpp ${(spent + left).toFixed(0)} s, --peer-seconds allows ${this.limit}`
      const count = Math.min(CHUNK, depth - this.depth)
      const { seconds } = await this.peer.fill(count)
      this.samples.push({ depth: this.depth + count / 2, secondsPerToken: seconds / count })
      this.depth += count
      spent += seconds
    }
    return spent
  }
}

export interface DepthTurns {
  readonly depth: number
  readonly prefill: Turns
  readonly decode: Turns
  /** Of the machine around each of our turns. */
  readonly limits: readonly MachineLimits[]
  readonly peerFillSeconds: number | null
  readonly skipped: string | null
}

export const measureDepths = async (engine: NativeEngine, peer: Peer, plan: Plan): Promise<DepthTurns[]> => {
  const filler = new Filler(peer, plan.peerSeconds)
  const measured: DepthTurns[] = []
  let filled: number | string = 0
  for (const depth of [...plan.depths].sort((a, b) => a - b)) {
    if (typeof filled === 'number') {
      note(`depth ${depth}: filling llama.cpp ...`)
      filled = await filler.to(depth)
    }
    const skipped = typeof filled === 'string' ? filled : null
    if (skipped) note(`depth ${depth}: without llama.cpp: ${skipped}`)
    const prefill = { ours: [] as number[], peer: [] as number[] }
    const decode = { ours: [] as number[], peer: [] as number[] }
    const limits: MachineLimits[] = []
    for (let i = 0; i < plan.pairs; i++) {
      note(`depth ${depth}: pair ${i + 1} of ${plan.pairs} ...`)
      const times = engine.bench({ ...plan, depth, repeats: 1, batch: 0, dense: false })
      limits.push(...times.limits)
      prefill.ours.push(...times.prefill)
      decode.ours.push(...times.decode)
      if (skipped) continue
      prefill.peer.push(await peer.prefill(plan.prefill))
      decode.peer.push(await peer.decode(plan.decode))
    }
    measured.push({
      depth,
      prefill,
      decode,
      limits,
      peerFillSeconds: typeof filled === 'number' ? filled : null,
      skipped,
    })
  }
  return measured
}

/** Decode of many sequences at once, after a prompt of BATCH_PROMPT tokens each. */
export const measureBatch = async (engine: NativeEngine, peer: Peer, sequences: number, plan: Plan) => {
  const turns = { ours: [] as number[], peer: [] as number[] }
  const limits: MachineLimits[] = []
  for (let i = 0; i < plan.pairs; i++) {
    note(`${sequences} sequences: pair ${i + 1} of ${plan.pairs} ...`)
    const ours = engine.bench({ ...plan, depth: BATCH_PROMPT, prefill: 1, repeats: 1, batch: sequences, dense: false })
    limits.push(...ours.limits)
    turns.ours.push(...ours.decode)
    turns.peer.push((await peer.batch(sequences, BATCH_PROMPT, plan.decode)).decode)
  }
  return { turns, limits }
}

/** Prompts of their own for each length, the same in every run. */
const promptOf = (vocab: number, count: number, seed: number): Int32Array => {
  let state = seed
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return 2 + ((state >>> 8) % (vocab - 2))
  })
}

/**
 * Next-token probabilities of both engines after the same `count` tokens, over some prompts. In random weights one expert
 * or key chosen otherwise changes all that follows, so the largest difference is chance; the least shows what rounding
 * does. Empties the peer's cache.
 */
export const compareAnswers = async (engine: NativeEngine, peer: Peer, count: number): Promise<AnswersResult> => {
  const vocab = engine.info.vocabSize
  const differences = { probability: [] as number[], logProbability: [] as number[] }
  let same = 0
  for (let seed = 1; seed <= PROMPTS; seed++) {
    const tokens = promptOf(vocab, count, seed)
    const theirs = await peer.answers(TOP, Array.from(tokens))
    const ours = logSoftmax(engine.evaluate(tokens, CHUNK, false).logits.subarray((count - 1) * vocab))
    const most = (difference: (mine: number, other: number) => number): number =>
      Math.max(...theirs.map(([id, other]) => Math.abs(difference(ours[id] as number, other))))
    differences.probability.push(most((mine, other) => Math.exp(mine) - Math.exp(other)))
    differences.logProbability.push(most((mine, other) => mine - other))
    if (argmax(ours) === theirs[0]?.[0]) same++
  }
  const summary = (all: readonly number[]) => ({ least: Math.min(...all), median: median(all), most: Math.max(...all) })
  return {
    ...{ tokens: count, prompts: PROMPTS, compared: TOP, sameLikeliest: same },
    probability: summary(differences.probability),
    logProbability: summary(differences.logProbability),
  }
}
