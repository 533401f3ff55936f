// Whether a series grows. Pure.
import { median } from '../bench/statistics.ts'

export interface Sampled {
  /** Seconds from the start. */
  readonly at: number
  readonly value: number
}

/** Least squares: by how much the value grows in a minute. */
export const slopePerMinute = (samples: readonly Sampled[]): number => {
  const n = samples.length
  const mean = (of: (s: Sampled) => number) => samples.reduce((sum, s) => sum + of(s), 0) / n
  const [at, value] = [mean((s) => s.at), mean((s) => s.value)]
  const spread = samples.reduce((sum, s) => sum + (s.at - at) ** 2, 0)
  if (spread === 0) return 0
  return (60 * samples.reduce((sum, s) => sum + (s.at - at) * (s.value - value), 0)) / spread
}

export interface Trend {
  /** Median of the first tenth behind the warm-up, and of the last tenth. */
  readonly start: number
  readonly end: number
  readonly most: number
  /** Over the last two thirds of what is behind the warm-up. */
  readonly perMinute: number
}

/** Leaves out the first quarter: caches fill, heaps find their size. */
export const trendOf = (all: readonly Sampled[]): Trend => {
  const samples = all.slice(Math.floor(all.length / 4))
  const tenth = Math.max(1, Math.floor(samples.length / 10))
  const values = samples.map(({ value }) => value)
  return {
    start: median(values.slice(0, tenth)),
    end: median(values.slice(-tenth)),
    most: Math.max(...values),
    perMinute: slopePerMinute(samples.slice(Math.floor(samples.length / 3))),
  }
}
