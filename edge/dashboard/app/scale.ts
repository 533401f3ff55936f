// The vertical scale of the chart: round steps, in whole tokens or nano-dollars.

const STEPS_MAX = 4

/** 0 and at most four multiples of 1, 2 or 5 times a power of ten; the last is at or above `most`. */
export const ticksOf = (most: number): number[] => {
  const rough = Math.max(1, most) / STEPS_MAX
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = Math.max(1, [1, 2, 5, 10].map((m) => m * power).find((one) => one >= rough) ?? 10 * power)
  return Array.from({ length: Math.ceil(Math.max(1, most) / step) + 1 }, (_, i) => Math.round(i * step))
}

const UNITS = [
  [1e12, 'T'],
  [1e9, 'B'],
  [1e6, 'M'],
  [1e3, 'K'],
] as const

/** Of a tick, which is round: `2000` is `2K`. */
export const shortCount = (count: number): string => {
  const [size, unit] = UNITS.find(([least]) => count >= least) ?? [1, '']
  return `${count / size}${unit}`
}
