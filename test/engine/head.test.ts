// What the head multiplies: the norm's output in BF16 where the kernels round, as the published model does with a head in
// BF16; all of it for a head in fp32.
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { EVERY_ISA, prompt, runnableIsas, withEngine } from './engines.ts'
import { GOLDENS } from './golden.ts'
import { editTensors, entryOf, readTensorFile } from './tensor_file.ts'

const UNTIED = join(GOLDENS, 'v3_moonlight')
const TIED = join(GOLDENS, 'v2_normalised_tied')
const isas = await runnableIsas(UNTIED, EVERY_ISA)

const toFloat = (bf16: number): number => new Float32Array(Uint32Array.of(bf16 << 16).buffer)[0] as number
const round = (x: number): number => {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0] as number
  return toFloat((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16)
}

/** A checkpoint's BF16 tensor. */
const tensor = (dir: string, name: string): Float32Array => {
  const { header, body } = readTensorFile(join(dir, 'model.safetensors'))
  const [begin = 0, end = 0] = entryOf(header, name).data_offsets
  return Float32Array.from({ length: (end - begin) / 2 }, (_, i) => toFloat(body.readUInt16LE(begin + 2 * i)))
}

/** Logits of one position after the last layer's output, in double precision. */
const logitsOf = (
  out: Float32Array,
  gain: Float32Array,
  head: Float32Array,
  eps: number,
  rounds: boolean,
): number[] => {
  const size = 1 / Math.sqrt(out.reduce((sum, x) => sum + x * x, 0) / out.length + eps)
  const normed = Array.from(out, (x, i) => x * size * (gain[i] as number)).map((x) => (rounds ? round(x) : x))
  return Array.from({ length: head.length / out.length }, (_, row) =>
    normed.reduce((sum, x, i) => sum + x * (head[row * out.length + i] as number), 0),
  )
}

const middle = (a: readonly number[], b: Float32Array): number =>
  a.map((x, i) => Math.abs(x - (b[i] as number))).sort((x, y) => x - y)[a.length >> 1] as number

/** A copy whose head is fp32. */
const widened = (dir: string): string => {
  const copy = mkdtempSync(join(tmpdir(), 'sparrow-head-'))
  cpSync(dir, copy, { recursive: true })
  editTensors(join(copy, 'model.safetensors'), (header, body) => {
    const head = entryOf(header, 'lm_head.weight')
    const [begin = 0, end = 0] = head.data_offsets
    const wide = Buffer.alloc(2 * (end - begin))
    for (let at = begin; at < end; at += 2) wide.writeUInt16LE(body.readUInt16LE(at), 2 * (at - begin) + 2)
    head.dtype = 'F32'
    head.data_offsets = [body.length, body.length + wide.length]
    // No byte may belong to no tensor.
    header.unused = { dtype: 'BF16', shape: [(end - begin) / 2], data_offsets: [begin, end] }
    return Buffer.concat([body, wide])
  })
  return copy
}

const check = (dir: string, isa: string, weights: string, headName: string, rounds: boolean) =>
  withEngine({ modelDir: dir, isa }, ({ info, evaluate }) => {
    const config = JSON.parse(readFileSync(join(weights, 'config.json'), 'utf8')) as { rms_norm_eps: number }
    const [gain, head] = [tensor(weights, 'model.norm.weight'), tensor(weights, headName)]
    const { logits, taps } = evaluate(prompt(8, info.vocabSize), 8, true)
    const outs = taps.filter((tap) => tap.name === 'layer_out').at(-1)
    if (!outs) throw new Error('no layer_out')
    const out = outs.data.subarray(7 * outs.columns)
    const last = logits.subarray(7 * info.vocabSize)
    const error = (rounded: boolean) => middle(logitsOf(out, gain, head, config.rms_norm_eps, rounded), last)
    expect(error(rounds) * 20).toBeLessThan(error(!rounds))
  })

const roundingIsas = (isa: string): boolean => isa === 'avx512bf16' || isa === 'amxbf16'

test.each(isas)('a head in BF16 takes what the kernels make of its input, tied or not: %s', async (isa) => {
  await check(UNTIED, isa, UNTIED, 'lm_head.weight', roundingIsas(isa))
  await check(TIED, isa, TIED, 'model.embed_tokens.weight', roundingIsas(isa))
})

test.each(isas)('a head in fp32 takes all of its input: %s', async (isa) => {
  const copy = widened(UNTIED)
  try {
    await check(copy, isa, UNTIED, 'lm_head.weight', false)
  } finally {
    rmSync(copy, { recursive: true })
  }
})
