// Exponential back-off with full jitter, for everything that calls the edge.

const FIRST_MS = 200
const LAST_MS = 30_000

/** Milliseconds to wait after the `failures`-th failure in a row. */
export const backoffMs = (failures: number): number =>
  Math.round(Math.min(LAST_MS, FIRST_MS * 2 ** Math.min(failures - 1, 20)) * (0.5 + Math.random() / 2))
