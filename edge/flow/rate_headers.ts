// Rate limits as headers, in OpenAI's names and units; cached tokens, which OpenAI does not limit apart, under a name of ours.
import type { RateState } from '../account/rates.ts'

/** OpenAI's way to write a time: `120ms`, `1.5s`, `6m0s`. */
export const duration = (ms: number): string => {
  if (ms < 1000) return `${ms}ms`
  const minutes = Math.floor(ms / 60_000)
  const seconds = (ms % 60_000) / 1000
  return minutes > 0 ? `${minutes}m${Math.ceil(seconds)}s` : `${Number(seconds.toFixed(3))}s`
}

export const addRateHeaders = (headers: Headers, rates: readonly RateState[]): void => {
  for (const { kind, limit, remaining, resetMs } of rates) {
    headers.set(`x-ratelimit-limit-${kind}`, String(limit))
    headers.set(`x-ratelimit-remaining-${kind}`, String(remaining))
    headers.set(`x-ratelimit-reset-${kind}`, duration(resetMs))
  }
}
