// Reproducible randomness of a load: one seed, the same arrivals and texts on every machine.

export type Random = () => number

/** Uniform in [0, 1), by mulberry32. */
export const randomOf = (seed: number): Random => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let z = Math.imul(state ^ (state >>> 15), state | 1)
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61)
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32
  }
}

/**
 * Arrivals of a Poisson process, given that as many come as are expected: then they lie uniformly, independent of each other.
 * So a short load offers just the rate it names. Milliseconds from the start, ascending.
 */
export const arrivals = (rate: number, seconds: number, seed: number): number[] => {
  const random = randomOf(seed)
  const count = Math.max(1, Math.round(rate * seconds))
  return Array.from({ length: count }, () => random() * seconds * 1000).sort((a, b) => a - b)
}
