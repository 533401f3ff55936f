// The arithmetic of a comparison: speeds of two engines that took turns, their ratios, and how long a fill will take.
import { z } from 'zod'
import { median } from '../statistics.ts'

export const pairsSchema = z.object({
  /** Tokens a second, in the order in which they were measured: ours[0], peer[0], ours[1], peer[1], ... */
  ours: z.array(z.number()),
  /** Empty where the peer was left out. */
  peer: z.array(z.number()),
  /** ours[i] / peer[i]. */
  ratios: z.array(z.number()),
  median: z.object({ ours: z.number(), peer: z.number().nullable(), ratio: z.number().nullable() }),
  /** Tokens a second that the machine allows, measured in the same run. */
  ceiling: z.number(),
})
export type Pairs = z.infer<typeof pairsSchema>

/** Seconds of each turn; the peer's are none where it was left out. */
export interface Turns {
  readonly ours: readonly number[]
  readonly peer: readonly number[]
}

/** Speeds and ratios of turns of `tokens` tokens each. */
export const comparePairs = (tokens: number, turns: Turns, ceiling: number): Pairs => {
  const [ours, peer] = [turns.ours.map((s) => tokens / s), turns.peer.map((s) => tokens / s)]
  const ratios = peer.map((speed, i) => (ours[i] as number) / speed)
  const orNull = (values: readonly number[]): number | null => (values.length ? median(values) : null)
  return { ours, peer, ratios, median: { ours: median(ours), peer: orNull(peer), ratio: orNull(ratios) }, ceiling }
}

export interface FillSample {
  readonly depth: number
  readonly secondsPerToken: number
}

/** Seconds to fill from one depth to another: a token's time is taken to grow in a line with the keys before it. */
export const predictFill = (samples: readonly FillSample[], from: number, to: number): number => {
  const n = samples.length
  const mean = (value: (s: FillSample) => number): number => samples.reduce((sum, s) => sum + value(s), 0) / n
  const [depth, time] = [mean((s) => s.depth), mean((s) => s.secondsPerToken)]
  const spread = mean((s) => (s.depth - depth) ** 2)
  const together = mean((s) => (s.depth - depth) * (s.secondsPerToken - time))
  const slope = spread > 0 ? Math.max(0, together / spread) : 0
  const start = Math.max(0, time - slope * depth)
  return start * (to - from) + (slope * (to ** 2 - from ** 2)) / 2
}
