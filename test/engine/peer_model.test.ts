// The peer model's maker: both files hold the same weights, and our engine runs them.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { listTensors, readTensor } from '../../gpu-node/quantize/safetensors.ts'
import { hasNumpy, makeModel, type PeerModel } from '../bench/peer/install.ts'
import { ceilings, roofline } from '../bench/roofline.ts'
import { runnableIsas, withEngine } from './engines.ts'
import { distance } from './golden.ts'

const MICRO = [
  ...['hidden=64', 'layers=3', 'heads=4', 'q_lora=32', 'kv_lora=32', 'nope=16', 'rope=16', 'v=16', 'ih=2', 'id=32'],
  ...['topk=16', 'experts=4', 'used=2', 'moe=32', 'inter=64', 'vocab=256', 'ctx=1024'],
]
const numpy = hasNumpy()
const folder = mkdtempSync(join(tmpdir(), 'sparrow-peer-'))
let model: PeerModel
beforeAll(() => {
  if (numpy) model = makeModel(join(folder, 'micro'), MICRO)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test.skipIf(!numpy)('llama.cpp gets the same bytes (skipped where python3 has no numpy)', () => {
  const gguf = readFileSync(model.gguf)
  expect(gguf.subarray(0, 4).toString()).toBe('GGUF')
  const tensors = listTensors(model.hf)
  expect(tensors.length).toBeGreaterThan(60)
  // Stored otherwise over there: kv_b in two parts, the router in fp32.
  const alike = tensors.filter(({ name }) => !/kv_b_proj|mlp\.gate\.weight/.test(name))
  expect(alike.filter((tensor) => !gguf.includes(Buffer.from(readTensor(tensor)))).map(({ name }) => name)).toEqual([])
})

test.skipIf(!numpy)(
  'our engine runs it, the same on every instruction set (skipped where python3 has no numpy)',
  async () => {
    const ids = Int32Array.from({ length: 40 }, (_, i) => 2 + ((i * 37) % 250))
    const run = (isa: string) =>
      withEngine({ modelDir: model.hf, isa }, (engine) => ({
        logits: engine.evaluate(ids, 64, false).logits,
        parameters: engine.info.parameters,
      }))
    const { logits, parameters } = await run('reference')
    expect(logits.every(Number.isFinite)).toBe(true)
    expect(logits).toHaveLength(40 * 256)
    expect(parameters).toBe(listTensors(model.hf).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0))
    for (const isa of await runnableIsas(model.hf))
      expect(distance((await run(isa)).logits, logits), isa).toBeLessThan(1e-4)
  },
)

test.skipIf(!numpy)('its ceilings fall with depth and batch (skipped where python3 has no numpy)', () => {
  const most = ceilings(roofline(model.hf), { readBytes: 1e9, bf16Flops: 1e12 })
  expect(most.prefill(0)).toBeGreaterThan(most.prefill(1000))
  expect(most.decode(0, 1)).toBeGreaterThan(most.decode(1000, 1))
  expect(most.decode(100, 16)).toBeGreaterThan(most.decode(100, 1))
  expect(most.decode(100, 16)).toBeLessThan(16 * most.decode(100, 1))
})

test.skipIf(!numpy)('is made once for the same arguments (skipped where python3 has no numpy)', () => {
  const before = readFileSync(model.gguf)
  rmSync(model.gguf)
  makeModel(join(folder, 'micro'), MICRO)
  expect(() => readFileSync(model.gguf)).toThrow(/ENOENT/)
  makeModel(join(folder, 'micro'), [...MICRO, 'seed=8'])
  expect(readFileSync(model.gguf).equals(before)).toBe(false)
})
