// FP8 KV pages: nearly the same answers from about half the bytes, whatever the chunking and the threads.
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { answers, compare } from '../bench/quality.ts'
import { ROOT } from '../tidy/sources.ts'
import { withEngine } from './engines.ts'

const MODEL = join(ROOT, 'gpu-node', 'model')
const IDS = Int32Array.from({ length: 300 }, (_, i) => 5 + ((i * 37) % 900))

const fp8Runs = await withEngine({ modelDir: MODEL, kv: 'fp8' }, () => true).catch((error: unknown) => {
  if (!String(error).includes('bf16')) throw error
  return false
})

test.skipIf(!fp8Runs)('answers of the embedded model stay what they are', async () => {
  const { kl, top1 } = compare(await answers(MODEL), await answers(MODEL, 'auto', 'fp8'))
  expect(kl).toBeGreaterThan(0) // else the pages were never FP8
  expect(kl).toBeLessThan(0.01)
  expect(top1).toBeGreaterThan(0.95)
})

test.skipIf(!fp8Runs)('a position takes the bytes that ARCHITECTURE.md says', async () => {
  const {
    num_hidden_layers: layers,
    kv_lora_rank: rank,
    qk_rope_head_dim: rope,
    index_head_dim: index,
  } = (await import(join(MODEL, 'config.json'), { with: { type: 'json' } })).default as Record<string, number>
  const keys = (index as number) + 4
  const bytes = (kv: string) => withEngine({ modelDir: MODEL, kv }, (engine) => engine.info.pageBytes)
  const [r, q] = [rank as number, rope as number]
  expect(await bytes('fp8')).toBe(64 * (layers as number) * (r + 4 * Math.ceil(r / 128) + 2 * q + keys))
  expect(await bytes('auto')).toBe(64 * (layers as number) * (2 * 32 * Math.ceil((r + q) / 32) + keys))
})

test.skipIf(!fp8Runs)('bits do not depend on chunks or threads', async () => {
  const logits = (threads: number, chunk: number) =>
    withEngine({ modelDir: MODEL, kv: 'fp8', threads }, (engine) => engine.evaluate(IDS, chunk, false).logits)
  const whole = await logits(1, 512)
  for (const [threads, chunk] of [
    [2, 512],
    [3, 1],
    [2, 37],
  ] as const)
    expect(Buffer.from((await logits(threads, chunk)).buffer).equals(Buffer.from(whole.buffer))).toBe(true)
})

test('FP8 pages are refused where no kernel reads them', async () => {
  await expect(withEngine({ modelDir: MODEL, isa: 'scalar', kv: 'fp8' }, () => 0)).rejects.toThrow(/kv: fp8 needs/)
  await expect(withEngine({ modelDir: MODEL, kv: 'fp4' }, () => 0)).rejects.toThrow(/neither auto nor fp8/)
})
