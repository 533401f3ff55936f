// The sampler in JavaScript, slow and obvious: from the logits of a position to the token that the engine must choose there.
import type { SequenceSpec } from '../../gpu-node/engine/engine.ts'

const M64 = (1n << 64n) - 1n

/** splitmix64 of (seed, position), in [0, 1). */
const uniform = (seed: bigint, position: number): number => {
  let z = (seed + BigInt(position + 1) * 0x9e3779b97f4a7c15n) & M64
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & M64
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & M64
  return Number((z ^ (z >> 31n)) >> 11n) / 2 ** 53
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

/** Natural logarithms of the softmax of `logits`. */
export const logSoftmax = (logits: readonly number[]): number[] => {
  const top = Math.max(...logits)
  const shift = top + Math.log(sum(logits.map((x) => Math.exp(x - top))))
  return logits.map((x) => x - shift)
}

/** Ids, highest value first, lowest id first among equals. */
export const ranked = (values: readonly number[]): number[] =>
  values.map((_, id) => id).sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b)

/** The token behind `prompt` and `sampled`, given the logits there and the ids that end a sequence. */
export const choose = (
  logits: readonly number[],
  spec: SequenceSpec,
  sampled: readonly number[],
  eos: readonly number[],
): number => {
  const banned = spec.ignoreEos || sampled.length < (spec.minTokens ?? 0) ? eos : []
  const adjusted = logits.map((logit, id) => {
    const times = sampled.filter((other) => other === id).length
    const repetition = times > 0 || spec.tokens.includes(id) ? (spec.repetitionPenalty ?? 1) : 1
    let x = logit > 0 ? logit / repetition : logit * repetition
    if (times > 0) x -= times * (spec.frequencyPenalty ?? 0) + (spec.presencePenalty ?? 0)
    x += spec.logitBias?.[String(id)] ?? 0
    return banned.includes(id) ? Number.NEGATIVE_INFINITY : x
  })
  const order = ranked(adjusted)
  if (spec.temperature === 0) return order[0] ?? -1
  const top = Math.max(...adjusted)
  let p = adjusted.map((x) => Math.exp((x - top) / spec.temperature)).map((x) => (x < (spec.minP ?? 0) ? 0 : x))
  const keep = (ids: readonly number[]) => p.map((x, id) => (ids.includes(id) ? x : 0))
  if (spec.topK) p = keep(order.slice(0, spec.topK))
  if (spec.topP < 1) {
    const total = sum(p)
    let mass = 0
    const kept = order.filter((id, i) => {
      const enough = i > 0 && mass >= spec.topP * total
      mass += p[id] ?? 0
      return !enough
    })
    p = keep(kept)
  }
  const line = spec.topK || spec.topP < 1 ? order : p.map((_, id) => id)
  let left = uniform(spec.seed, sampled.length) * sum(p)
  for (const id of line) {
    left -= p[id] ?? 0
    if (left < 0) return id
  }
  return order[0] ?? -1
}
