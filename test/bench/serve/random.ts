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

/** Poisson arrivals: milliseconds from the start, ascending, all below `seconds`. */
export const arrivals = (rate: number, seconds: number, seed: number): number[] => {
  const random = randomOf(seed)
  const times: number[] = []
  for (let at = 0; ; ) {
    at += (-Math.log(1 - random()) / rate) * 1000
    if (at >= seconds * 1000) return times
    times.push(at)
  }
}
