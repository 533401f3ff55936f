// Money is integers in nano-dollars (1e-9 USD); nothing in Sparrow holds a price or an amount as a float.

/** Nano-dollars a token. DeepSeek-V3.2's published prices are the defaults. */
export interface Price {
  readonly hit: number
  readonly miss: number
  readonly output: number
}

export const DEFAULT_PRICE: Price = { hit: 28, miss: 280, output: 420 }
export const NANO_PER_USD = 1_000_000_000

/** The three disjoint integers that are billed; `hit + miss` is the prompt. */
export interface TokenCounts {
  readonly hit: number
  readonly miss: number
  readonly output: number
}

/** Exact cost in nano-dollars. Safe to 2^53 nano-dollars (9 million USD) for one request. */
export const costOf = (tokens: TokenCounts, price: Price): number =>
  tokens.hit * price.hit + tokens.miss * price.miss + tokens.output * price.output

/**
 * The hold: the most a run may cost. Every prompt byte counts as a token, since a byte-level BPE never has more
 * tokens than bytes and every special token has at least one byte; nothing is assumed cached.
 */
export const holdOf = (promptBytes: number, maxTokens: number, price: Price): number =>
  promptBytes * Math.max(price.hit, price.miss) + maxTokens * price.output

/** `1234567890` -> `"1.234567890"`: exact decimal dollars, no float on the way. */
export const formatUsd = (nano: number): string => {
  const digits = Math.abs(nano).toString().padStart(10, '0')
  return `${nano < 0 ? '-' : ''}${digits.slice(0, -9)}.${digits.slice(-9)}`
}

/** `"10"`, `"0.5"` -> nano-dollars; `undefined` when it is no plain decimal with at most nine places. */
export const parseUsd = (text: string): number | undefined => {
  const match = /^(\d{1,7})(?:\.(\d{1,9}))?$/.exec(text.trim())
  if (!match) return undefined
  return Number(match[1]) * NANO_PER_USD + Number((match[2] ?? '').padEnd(9, '0'))
}
