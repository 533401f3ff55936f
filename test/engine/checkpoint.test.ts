// Corrupt and unsupported checkpoints are refused at load, with the tensor or field named; no byte may crash the process.
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openNativeEngine } from '../../gpu-node/engine/native.ts'
import { GOLDENS } from './golden.ts'
import { editTensors, entryOf as entry, type Header } from './tensor_file.ts'

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sparrow-checkpoint-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const use = (golden: string): void => cpSync(join(GOLDENS, golden), dir, { recursive: true })
const open = () => openNativeEngine({ modelDir: dir, tokenBytes: [], isa: 'scalar' }).then((engine) => engine.close())
const refused = (code: string, message: RegExp) =>
  expect(open()).rejects.toMatchObject({ code, message: expect.stringMatching(message) })

const edit = (change: (header: Header, body: Buffer) => unknown, file = 'model.safetensors'): void =>
  editTensors(join(dir, file), (header, body) => {
    change(header, body)
    return body
  })

const config = (change: (config: Record<string, unknown>) => void): void => {
  const path = join(dir, 'config.json')
  const json = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  change(json)
  writeFileSync(path, JSON.stringify(json))
}

const KV_A = 'model.layers.0.self_attn.kv_a_proj_with_mqa.weight'

test('a sound checkpoint opens, also with an unaligned body', async () => {
  use('v32_groups_yarn')
  await open()
  edit(() => {})
  await open()
})

test.each([
  ['truncated', () => truncateSync(join(dir, 'model.safetensors'), 20_000), /lm_head.weight: .*\(truncated\?\)/],
  ['only a stub', () => truncateSync(join(dir, 'model.safetensors'), 5), /shorter than a safetensors header/],
  ['missing', () => rmSync(join(dir, 'model.safetensors')), /no such file/],
  ['missing tensor', () => edit((h) => delete h[KV_A]), /kv_a_proj_with_mqa.weight: is missing/],
  ['wrong shape', () => edit((h) => entry(h, KV_A).shape.reverse()), /has shape \[64,40\], expected \[40,64\]/],
  [
    'too large a shape',
    () => edit((h) => entry(h, KV_A).shape.push(1e9)),
    /kv_a_proj_with_mqa.weight: its shape .* is larger than the file/,
  ],
  ['sizes that disagree', () => edit((h) => entry(h, KV_A).shape.pop()), /bytes stored, shape and dtype need/],
  [
    'overlap',
    () =>
      edit(
        (h) =>
          (entry(h, KV_A).data_offsets = entry(h, 'model.layers.1.self_attn.kv_a_proj_with_mqa.weight').data_offsets),
      ),
    /overlaps/,
  ],
  ['shape no array', () => edit((h) => Object.assign(entry(h, KV_A), { shape: 40 })), /its shape is malformed/],
  [
    'a header of little text and many values',
    () => edit((h) => Object.assign(h, { __metadata__: new Array(1 << 20).fill(0) })),
    /JSON: too many values at byte/,
  ],
  ['unknown dtype', () => edit((h) => (entry(h, KV_A).dtype = 'F7')), /unknown dtype 'F7'/],
  ['negative offsets', () => edit((h) => (entry(h, KV_A).data_offsets = [-4, 10])), /data_offsets/],
  ['config no JSON', () => writeFileSync(join(dir, 'config.json'), '{"vocab_size": }'), /config.json: JSON/],
  ['a lone surrogate', () => writeFileSync(join(dir, 'config.json'), '{"\\udc00": 1}'), /JSON: lone surrogate/],
  [
    'YaRN without a base',
    () => config((c) => Object.assign(c, { rope_theta: 1 })),
    /rope_theta must exceed 1 with YaRN/,
  ],
  ['config without a field', () => config((c) => delete c.kv_lora_rank), /kv_lora_rank is missing/],
  ['config with a bad value', () => config((c) => (c.num_attention_heads = -1)), /num_attention_heads is no integer/],
])('corrupt: %s', async (_name, damage, message) => {
  use('v32_groups_yarn')
  damage()
  await refused('checkpoint_invalid', message)
})

test.each([
  [
    'architecture',
    (c: Record<string, unknown>) => (c.architectures = ['LlamaForCausalLM']),
    /architectures 'LlamaForCausalLM'/,
  ],
  [
    'scoring',
    (c: Record<string, unknown>) => (c.scoring_func = 'tanh'),
    /scoring_func 'tanh' is not supported; supported/,
  ],
  [
    'rope type',
    (c: Record<string, unknown>) => (c.rope_scaling = { type: 'longrope' }),
    /rope_scaling.type 'longrope'/,
  ],
  ['index sharing', (c: Record<string, unknown>) => (c.index_topk_freq = 4), /index_topk_freq/],
  [
    'a context that no file bears out',
    (c: Record<string, unknown>) => (c.max_position_embeddings = 1 << 24),
    /max_position_embeddings asks for 536870912 bytes/,
  ],
  ['activation', (c: Record<string, unknown>) => (c.hidden_act = 'gelu'), /hidden_act/],
])('unsupported: %s', async (_name, change, message) => {
  use('v32_groups_yarn')
  config(change)
  await refused('unsupported', message)
})

test('FP8: a NaN code, a missing scale and a floor-divided scale are refused by name', async () => {
  use('v3_no_q_lora_fp8')
  edit((h, body) => body.writeUInt8(0x7f, entry(h, KV_A).data_offsets[0]))
  await refused('checkpoint_invalid', /kv_a_proj_with_mqa.weight: holds an FP8 NaN at element 0/)
  use('v3_no_q_lora_fp8')
  edit((h) => delete h[`${KV_A}_scale_inv`])
  await refused('checkpoint_invalid', /weight_scale_inv: is missing/)
  use('v3_no_q_lora_fp8')
  edit((h) => {
    const scale = entry(h, `${KV_A}_scale_inv`)
    scale.shape[0] = 1
    scale.data_offsets[1] = (scale.data_offsets[0] ?? 0) + 4
  })
  await refused('checkpoint_invalid', /weight_scale_inv: has shape \[1,1\], expected \[2,1\]/)
})

// The BF16 backend read the others of a layer as the first of them is stored: NaN, noise, or memory beyond the weights.
test.each(['gate_proj', 'up_proj', 'down_proj'])(
  'one %s of a layer in another format is refused by name',
  async (part) => {
    use('v32_groups_yarn')
    const name = `model.layers.1.mlp.experts.3.${part}.weight`
    edit((h, body) => {
      const weight = entry(h, name)
      const [begin = 0, end = 0] = weight.data_offsets
      const middle = begin + (end - begin) / 2
      body.fill(0, begin, end)
      Object.assign(weight, { dtype: 'F8_E4M3', data_offsets: [begin, middle] })
      h[`${name}_scale_inv`] = { dtype: 'F32', shape: [1, 1], data_offsets: [middle, middle + 4] }
    })
    await refused(
      'unsupported',
      new RegExp(`experts.3.${part}.weight: is stored otherwise than the layer's other experts`),
    )
  },
)

test('a router bias that is not finite is refused', async () => {
  use('v32_groups_yarn')
  const name = 'model.layers.1.mlp.gate.e_score_correction_bias'
  edit((h, body) => body.writeFloatLE(Number.NaN, entry(h, name).data_offsets[0]))
  await refused('checkpoint_invalid', /e_score_correction_bias: element 0 is not finite/)
})

test('a shard that the index promises but that is gone is named', async () => {
  use('v32_fp8_sharded')
  await open()
  rmSync(join(dir, 'model-00002-of-00002.safetensors'))
  await refused('checkpoint_invalid', /model-00002-of-00002.safetensors: no such file/)
})

test('random damage ends in an error or in a model, never in a crash', async () => {
  use('v32_groups_yarn')
  const path = join(dir, 'model.safetensors')
  const sound = readFileSync(path)
  let state = 12345
  const next = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return state % below
  }
  for (let round = 0; round < 150; round++) {
    const bytes = Buffer.from(sound)
    for (let i = 0; i < 4; i++) bytes[next(round % 3 ? 3000 : bytes.length)] = next(256)
    writeFileSync(path, bytes)
    await open().catch((error: { code: string }) => expect(['checkpoint_invalid', 'unsupported']).toContain(error.code))
  }
})
