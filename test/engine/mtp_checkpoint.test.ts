// Checkpoints with all, a part, or nothing of the MTP layer they promise; and what npm run quantize makes of one.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { FORMATS } from '../../gpu-node/quantize/formats.ts'
import { collect, prompt, withEngine } from './engines.ts'
import { GOLDENS } from './golden.ts'
import { editTensors, entryOf, type Header, tensorNames } from './tensor_file.ts'

const CLI = join(import.meta.dirname, '../../gpu-node/quantize/main.ts')
let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sparrow-mtp-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const use = (golden: string): void => cpSync(join(GOLDENS, golden), dir, { recursive: true })
const edit = (change: (header: Header, body: Buffer) => Buffer | undefined): void =>
  editTensors(join(dir, 'model.safetensors'), change)
const info = (speculate = true) => withEngine({ modelDir: dir, isa: 'scalar', speculate }, (engine) => engine.info)
const ids = (speculate: boolean) =>
  withEngine({ modelDir: dir, speculate }, async (engine) => ({
    ids: (await collect(engine, { tokens: prompt(50, 96, 2), maxTokens: 40 })).ids,
    drafts: engine.stats().draftTokens,
  }))

const drop = (names: RegExp): void =>
  edit((header) => {
    for (const name of Object.keys(header)) if (names.test(name)) delete header[name]
    return undefined
  })

test('an export without the promised layer runs without it', async () => {
  use('v32_mtp_copies')
  const whole = await ids(false)
  drop(/layers\.2\./)
  expect((await info()).speculates).toBe(false)
  const without = await ids(true)
  expect(without).toEqual({ ids: whole.ids, drafts: 0 })
})

test.each([
  'enorm.weight',
  'hnorm.weight',
  'eh_proj.weight',
  'shared_head.norm.weight',
  'input_layernorm.weight',
  'self_attn.kv_b_proj.weight',
  'self_attn.indexer.wk.weight',
  'mlp.gate.weight',
  'mlp.experts.5.up_proj.weight',
])('a part of the layer is refused: no %s', async (name) => {
  use('v32_mtp_copies')
  edit((header) => {
    entryOf(header, `model.layers.2.${name}`)
    delete header[`model.layers.2.${name}`]
    return undefined
  })
  await expect(info()).rejects.toMatchObject({
    code: 'checkpoint_invalid',
    message: `model.layers.2.${name}: is missing`,
  })
  expect((await info(false)).speculates).toBe(false)
})

test('a projection of another shape is refused by name', async () => {
  use('v32_mtp_copies')
  edit((header) => {
    entryOf(header, 'model.layers.2.eh_proj.weight').shape.reverse()
    return undefined
  })
  await expect(info()).rejects.toMatchObject({ message: /layers\.2\.eh_proj\.weight: has shape \[128,64\]/ })
})

/** A second copy of a tensor under another name, as published checkpoints hold them. */
const repeat = (name: string, as: string): void =>
  edit((header, body) => {
    const { dtype, shape, data_offsets } = entryOf(header, name)
    const copy = body.subarray(data_offsets[0], data_offsets[1])
    header[as] = { dtype, shape, data_offsets: [body.length, body.length + copy.length] }
    return Buffer.concat([body, copy])
  })

test('embedding and head that repeat the main ones are shared, others are kept', async () => {
  use('v32_mtp_copies')
  const [absent, answer] = [await info(), await ids(true)]
  repeat('model.embed_tokens.weight', 'model.layers.2.embed_tokens.weight')
  repeat('lm_head.weight', 'model.layers.2.shared_head.head.weight')
  expect((await info()).parameters).toBe(absent.parameters)
  expect(await ids(true)).toEqual(answer)
  edit((header, body) => {
    const [at = 0] = entryOf(header, 'model.layers.2.shared_head.head.weight').data_offsets
    body.writeUInt8(body.readUInt8(at) ^ 1, at)
    return body
  })
  expect((await info()).parameters).toBe(absent.parameters + 96 * 64)
})

test.each(FORMATS)('quantized to %s', async (format) => {
  execFileSync(process.execPath, [CLI, '--from', join(GOLDENS, 'v32_mtp_copies'), '--to', dir, '--format', format], {
    stdio: 'pipe',
  })
  const shards = readdirSync(dir).filter((name) => name.endsWith('.safetensors'))
  const names = shards.flatMap((name) => tensorNames(join(dir, name)))
  const scaled = (name: string) => names.some((found) => found.startsWith(`model.layers.2.${name}.weight_scale`))
  expect(scaled('self_attn.o_proj')).toBe(true)
  for (const kept of ['eh_proj', 'enorm', 'hnorm', 'shared_head.norm', 'mlp.gate', 'self_attn.indexer.weights_proj'])
    expect(scaled(kept), kept).toBe(false)
  const guessed = await ids(true)
  expect(guessed.drafts).toBeGreaterThan(0)
  expect(guessed.ids).toEqual((await ids(false)).ids)
})
