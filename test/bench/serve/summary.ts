// From what each request saw to the figures of a load. Pure.
import { percentile } from '../statistics.ts'

/** One request, times in milliseconds. */
export interface Sample {
  /** Sent so long after its time: the load generator's own fault. */
  readonly lag: number
  /** From when it was due, not from when it was sent; undefined without a token. */
  readonly ttft: number | undefined
  /** Gaps between pieces of text; several tokens that came together are one piece. */
  readonly gaps: readonly number[]
  readonly e2e: number
  readonly promptTokens: number
  readonly cachedTokens: number
  readonly outputTokens: number
  /** Undefined: a whole answer. */
  readonly error: string | undefined
}

export interface Slo {
  readonly ttftMs: number
  /** Of a request's mean time a token behind the first. */
  readonly itlMs: number
}

export interface Spread {
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly mean: number
}

const round = (value: number): number => (Number.isNaN(value) ? 0 : Math.round(value * 100) / 100)
const sum = (values: readonly number[]): number => values.reduce((all, value) => all + value, 0)

export const spread = (values: readonly number[]): Spread => ({
  p50: round(percentile(values, 0.5)),
  p90: round(percentile(values, 0.9)),
  p99: round(percentile(values, 0.99)),
  mean: round(sum(values) / values.length),
})

/** Mean time of a token behind the first; 0 for answers of one. */
export const tpot = ({ e2e, ttft, outputTokens }: Sample): number =>
  outputTokens > 1 && ttft !== undefined ? (e2e - ttft) / (outputTokens - 1) : 0

/** A whole answer, in time. */
export const isGood = (sample: Sample, slo: Slo): boolean =>
  sample.error === undefined && sample.ttft !== undefined && sample.ttft <= slo.ttftMs && tpot(sample) <= slo.itlMs

/** `seconds`: how long requests were sent. Times are of whole answers. */
export const summarise = (samples: readonly Sample[], seconds: number, slo: Slo) => {
  const whole = samples.filter(({ error }) => error === undefined)
  const errors: Record<string, number> = {}
  for (const { error } of samples) if (error !== undefined) errors[error] = (errors[error] ?? 0) + 1
  const good = samples.filter((sample) => isGood(sample, slo)).length
  const total = (of: (sample: Sample) => number) => sum(whole.map(of))
  return {
    ...{ sent: samples.length, completed: whole.length, good, errors },
    /** Requests a second that met the SLO. */
    goodput: round(good / seconds),
    requestsPerSecond: round(whole.length / seconds),
    outputTokensPerSecond: round(total(({ outputTokens }) => outputTokens) / seconds),
    promptTokensPerSecond: round(total(({ promptTokens }) => promptTokens) / seconds),
    meanPromptTokens: round(total(({ promptTokens }) => promptTokens) / whole.length),
    cachedShare: round(total(({ cachedTokens }) => cachedTokens) / total(({ promptTokens }) => promptTokens)),
    ttft: spread(whole.flatMap(({ ttft }) => ttft ?? [])),
    itl: spread(whole.flatMap(({ gaps }) => gaps)),
    tpot: spread(whole.filter(({ outputTokens }) => outputTokens > 1).map(tpot)),
    e2e: spread(whole.map(({ e2e }) => e2e)),
    lag: { ...spread(samples.map(({ lag }) => lag)), max: round(Math.max(0, ...samples.map(({ lag }) => lag))) },
  }
}
export type Summary = ReturnType<typeof summarise>
