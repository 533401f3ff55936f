// Attention `fastest`: answers of the expanded form are those of the absorbed one but for rounding, and the same bits in
// any pieces that take the same form, on any threads.
import { describe, expect, test } from 'vitest'
import { answers, compare } from '../bench/quality.ts'
import { prompt, withEngine } from './engines.ts'
import { distance, MODEL_DIR } from './golden.ts'

const same = (a: Float32Array, b: Float32Array): boolean => Buffer.from(a.buffer).equals(Buffer.from(b.buffer))

const logits = (
  options: Omit<Parameters<typeof withEngine>[0], 'modelDir'> & { modelDir?: string },
  ids: Int32Array,
  chunk: number,
): Promise<Float32Array> =>
  withEngine({ modelDir: MODEL_DIR, ...options }, (engine) => engine.evaluate(ids, chunk, false).logits)

const bf16 = await withEngine({ modelDir: MODEL_DIR, attention: 'fastest' }, ({ info }) => info.isa.endsWith('bf16'))

test.skipIf(!bf16)('answers of the embedded model stay what they are', async () => {
  const { kl, top1 } = compare(await answers(MODEL_DIR), await answers(MODEL_DIR, 'auto', 'auto', 'fastest'))
  expect(kl).toBeGreaterThan(0) // else no piece took the expanded form
  expect(kl).toBeLessThan(1e-3)
  expect(top1).toBeGreaterThan(0.97)
})

describe.each(['auto', 'fp8'])('KV pages %s', (kv) => {
  test.skipIf(!bf16)('bits do not depend on threads, nor on pieces of one form; short pieces are as ever', async () => {
    const ids = prompt(128, 2048)
    const whole = await logits({ attention: 'fastest', kv, threads: 1 }, ids, 128)
    const invariant = await logits({ kv, threads: 1 }, ids, 128)
    expect(same(whole, invariant)).toBe(false)
    for (const [threads, chunk] of [
      [2, 128],
      [3, 64],
    ] as const)
      expect(same(await logits({ attention: 'fastest', kv, threads }, ids, chunk), whole), `${chunk}`).toBe(true)
    expect(same(await logits({ attention: 'fastest', kv }, ids, 63), invariant)).toBe(true)
  })
})

// The reference has the expanded form too, in double, so the model around it is held to fp32's own rounding.
test('the reference with expanded keys, with and without a choice', async () => {
  for (const ids of [prompt(72, 2048), prompt(140, 2048)]) {
    const expanded = await logits({ isa: 'reference', attention: 'fastest' }, ids, 1000)
    const absorbed = await logits({ isa: 'reference' }, ids, 1000)
    expect(same(expanded, absorbed)).toBe(false) // else nothing took the expanded form
    expect(distance(expanded, absorbed)).toBeLessThan(1e-4)
  }
})

test('an unknown form is refused, and a backend without the expanded one keeps its own', async () => {
  const wrong = { modelDir: MODEL_DIR, attention: 'quickest' as 'fastest' }
  await expect(withEngine(wrong, () => 0)).rejects.toThrow(/neither invariant nor fastest/)
  const ids = prompt(80, 2048)
  const scalar = await logits({ isa: 'scalar', attention: 'fastest' }, ids, 80)
  expect(same(scalar, await logits({ isa: 'scalar' }, ids, 80))).toBe(true)
})
