// Both engines loaded, taking turns: ours, peer, ours, peer. Ours fills its cache for each turn; the peer, whose filling
// is slow, fills once a depth and goes back after each measurement.
import type { NativeEngine } from '../../../gpu-node/engine/native.ts'
import { argmax, logSoftmax } from '../quality.ts'
import type { Peer } from './client.ts'
import { type FillSample, predictFill, type Turns } from './pairs.ts'
import type { AnswersResult } from './result.ts'

const CHUNK = 512
/** A fit to fewer chunks says too little to give a depth up. */
const SAMPLES_LEAST = 4
const TOP = 50
export const BATCH_PROMPT = 256

const note = (text: string): void => console.error(`bench:peer: ${text}`)

export interface Plan {
  readonly depths: readonly number[]
  readonly prefill: number
  readonly decode: number
  readonly pairs: number
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
    for (let i = 0; i < plan.pairs; i++) {
      note(`depth ${depth}: pair ${i + 1} of ${plan.pairs} ...`)
      const times = engine.bench({ depth, prefill: plan.prefill, decode: plan.decode, repeats: 1, batch: 0 })
      prefill.ours.push(...times.prefill)
      decode.ours.push(...times.decode)
      if (skipped) continue
      prefill.peer.push(await peer.prefill(plan.prefill))
      decode.peer.push(await peer.decode(plan.decode))
    }
    measured.push({ depth, prefill, decode, peerFillSeconds: typeof filled === 'number' ? filled : null, skipped })
  }
  return measured
}

/** Decode of many sequences at once, after a prompt of BATCH_PROMPT tokens each. */
export const measureBatch = async (engine: NativeEngine, peer: Peer, sequences: number, plan: Plan): Promise<Turns> => {
  const turns = { ours: [] as number[], peer: [] as number[] }
  for (let i = 0; i < plan.pairs; i++) {
    note(`${sequences} sequences: pair ${i + 1} of ${plan.pairs} ...`)
    const ours = engine.bench({ depth: BATCH_PROMPT, prefill: 1, decode: plan.decode, repeats: 1, batch: sequences })
    turns.ours.push(...ours.decode)
    turns.peer.push((await peer.batch(sequences, BATCH_PROMPT, plan.decode)).decode)
  }
  return turns
}

/** Next-token log-probabilities of both engines after the same `count` tokens. Empties the peer's cache. */
export const compareAnswers = async (engine: NativeEngine, peer: Peer, count: number): Promise<AnswersResult> => {
  const vocab = engine.info.vocabSize
  const tokens = Int32Array.from({ length: count }, (_, i) => 2 + ((i * 7919 + 101) % (vocab - 2)))
  const theirs = await peer.answers(TOP, Array.from(tokens))
  const { logits } = engine.evaluate(tokens, CHUNK, false)
  const ours = logSoftmax(logits.subarray((count - 1) * vocab))
  const most = (difference: (id: number, theirs: number) => number): number =>
    theirs.reduce((worst, [id, logProbability]) => Math.max(worst, Math.abs(difference(id, logProbability))), 0)
  const likeliest = theirs[0]?.[0] ?? -1
  return {
    tokens: count,
    compared: theirs.length,
    probabilityDifference: most((id, p) => Math.exp(ours[id] as number) - Math.exp(p)),
    logProbabilityDifference: most((id, p) => (ours[id] as number) - p),
    likeliest: Math.exp(theirs[0]?.[1] ?? Number.NaN),
    sameLikeliest: argmax(ours) === likeliest,
  }
}
