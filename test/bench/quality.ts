// How far a quantised model, or FP8 KV pages, are from the original, on the prompts of the embedded model's goldens:
// node test/bench/quality.ts ORIGINAL_DIR DIR ...
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { withEngine } from '../engine/engines.ts'
import { GOLDENS } from '../engine/golden.ts'

interface Answers {
  readonly logits: readonly Float32Array[]
  readonly tokens: readonly (readonly number[])[]
  readonly vocab: number
}

/** Logits of every position of every prompt. */
export const answers = (
  modelDir: string,
  isa = 'auto',
  kv = 'auto',
  attention: 'invariant' | 'fastest' = 'invariant',
): Promise<Answers> => {
  const cases = JSON.parse(readFileSync(join(GOLDENS, 'embedded', 'logits.json'), 'utf8')) as { tokens: number[] }[]
  const tokens = cases.map((each) => each.tokens)
  return withEngine({ modelDir, isa, kv, attention }, (engine) => ({
    logits: tokens.map((ids) => engine.evaluate(Int32Array.from(ids), 512, false).logits),
    tokens,
    vocab: engine.info.vocabSize,
  }))
}

export const logSoftmax = (row: Float32Array): Float64Array => {
  const top = row.reduce((a, b) => Math.max(a, b))
  const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x - top), 0))
  return Float64Array.from(row, (x) => x - top - total)
}

export const argmax = (row: Float64Array): number =>
  row.reduce((best, x, i) => (x > (row[best] as number) ? i : best), 0)

export interface Quality {
  /** Mean over positions of KL(original || other), in nats. */
  readonly kl: number
  /** Share of positions with the same likeliest token. */
  readonly top1: number
  /** Mean negative log likelihood of the prompts' own next tokens, in nats. */
  readonly loss: number
}

export const compare = (original: Answers, other: Answers): Quality => {
  let [kl, same, loss, positions, predicted] = [0, 0, 0, 0, 0]
  for (const [i, ids] of original.tokens.entries()) {
    for (let t = 0; t < ids.length; t++) {
      const slice = (logits?: Float32Array) =>
        logSoftmax((logits as Float32Array).subarray(t * original.vocab, (t + 1) * original.vocab))
      const [p, q] = [slice(original.logits[i]), slice(other.logits[i])]
      for (let v = 0; v < p.length; v++) kl += Math.exp(p[v] as number) * ((p[v] as number) - (q[v] as number))
      if (argmax(p) === argmax(q)) same++
      positions++
      const next = ids[t + 1]
      if (next === undefined) continue
      loss -= q[next] as number
      predicted++
    }
  }
  return { kl: kl / positions, top1: same / positions, loss: loss / predicted }
}

if (process.argv[1] === import.meta.filename) {
  const [original, ...others] = process.argv.slice(2)
  if (!original) throw new Error('usage: node test/bench/quality.ts ORIGINAL_DIR DIR ...')
  const exact = await answers(original, 'avx2')
  const rows = [...[original, ...others].map((dir) => [dir, 'auto'] as const), [original, 'fp8'] as const]
  for (const [dir, kv] of rows) {
    const { kl, top1, loss } = compare(exact, await answers(dir, 'auto', kv))
    console.log(
      `${dir}${kv === 'fp8' ? ', FP8 KV pages' : ''}  KL ${kl.toExponential(2)} nats  top-1 ${(100 * top1).toFixed(2)}%  loss ${loss.toFixed(4)}`,
    )
  }
}
