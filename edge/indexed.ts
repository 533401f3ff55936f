// Which blocks of a prompt have rows in the prefix index: what `npm run bench:prefix` weighs.

/** From here on only every fourth block has a row, so that a long prompt does not cost hundreds (`npm run bench:prefix`). */
const DENSE_BLOCKS = 16
const SPARSE_STEP = 4

/** The blocks of a chain that have rows. Which ones depends on their place alone: two prompts that begin alike agree on them. */
export const indexed = <T>(chain: readonly T[]): T[] =>
  chain.filter((_, i) => i < DENSE_BLOCKS || (i + 1) % SPARSE_STEP === 0)
