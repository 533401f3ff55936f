// npm run quantize -- --from DIR --to DIR --format int8|int4|fp8
// Weights of a BF16 checkpoint to a low-bit one of the same architecture (formats.ts has the layout). Files are written
// under another name and renamed when whole: run the same command again after a break and the finished ones are kept.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { FORMATS, type Format, GROUP, quantize } from './formats.ts'
import { parseJson } from './json_file.ts'
import { toFloats } from './numbers.ts'
import { planShards, type Shard, type Step } from './plan.ts'
import { listTensors, readTensor, writeSafetensors } from './safetensors.ts'

const USAGE = 'usage: npm run quantize -- --from DIR --to DIR --format int8|int4|fp8'
const COPIED = ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json', 'chat_template.jinja']
/** In `--to`: which files the weights were made from. */
const SOURCES = 'quantized_from.json'

interface Options {
  readonly from: string
  readonly to: string
  readonly format: Format
}

const readOptions = (): Options => {
  const { values } = parseArgs({
    options: { from: { type: 'string' }, to: { type: 'string' }, format: { type: 'string' } },
  })
  const parsed = z.object({ from: z.string(), to: z.string(), format: z.enum(FORMATS) }).safeParse(values)
  if (!parsed.success) throw new Error(USAGE)
  if (!existsSync(join(parsed.data.from, 'config.json')))
    throw new Error(`--from: ${parsed.data.from} holds no config.json`)
  return parsed.data
}

/** The output config: the source's, with what the loader needs to know of the format. */
const outputConfig = (options: Options): string => {
  const path = join(options.from, 'config.json')
  const config = parseJson(path, z.record(z.string(), z.unknown()), readFileSync(path, 'utf8'))
  if (config.quantization_config)
    throw new Error(`--from: ${options.from} is quantized already; start from a BF16 checkpoint`)
  config.quantization_config =
    options.format === 'fp8'
      ? { quant_method: 'fp8', fmt: 'e4m3', activation_scheme: 'dynamic', weight_block_size: [128, 128] }
      : { quant_method: 'sparrow', format: options.format, group_size: GROUP[options.format], symmetric: true }
  return `${JSON.stringify(config, null, 2)}\n`
}

/** Names, sizes and times of the source's weights: other ones must not be mixed with what an earlier call wrote. */
const sourcesOf = (from: string): string => {
  const files = readdirSync(from).filter((name) => name.endsWith('.safetensors'))
  const facts = files.sort().map((name) => {
    const { size, mtime } = statSync(join(from, name))
    return { name, size, changed: mtime.toISOString() }
  })
  return `${JSON.stringify(facts, null, 1)}\n`
}

/** Whole or not at all: a call on a full disk must not cut short what an earlier one finished. */
const put = (path: string, data: string | Uint8Array): void => {
  writeFileSync(`${path}.partial`, data)
  renameSync(`${path}.partial`, path)
}

/** Writes what describes the output, once. Throws where the folder holds anything that was made from something else. */
const begin = (options: Options, config: string): void => {
  const texts = { [SOURCES]: sourcesOf(options.from), 'config.json': config }
  const isBegun = existsSync(join(options.to, 'config.json'))
  for (const [name, text] of Object.entries(texts)) {
    const path = join(options.to, name)
    if (!isBegun) put(path, text)
    else if (!existsSync(path) || readFileSync(path, 'utf8') !== text)
      throw new Error(
        `--to: ${options.to} holds another model or format, or was made from other weights; choose an empty folder`,
      )
  }
}

const stepData = (step: Step, format: Format): Uint8Array[] => {
  const bytes = readTensor(step.source)
  if (!step.quantized) return [bytes]
  const [rows, cols] = step.source.shape as [number, number]
  const floats = toFloats(step.source.dtype === 'F32' ? 'F32' : 'BF16', bytes)
  const bad = floats.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) throw new Error(`${step.source.name}: element ${bad} is not finite`)
  const { codes, scales } = quantize(format, floats, rows, cols)
  return [codes, scales]
}

const writeShard = (path: string, shard: Shard, format: Format, advance: (bytes: number) => void): void => {
  const flat = shard.steps.flatMap((step) => step.outputs.map((output, part) => ({ step, output, part })))
  let current: { step: Step; data: Uint8Array[] } | undefined
  writeSafetensors(
    `${path}.partial`,
    flat.map(({ output }) => output),
    (i) => {
      const item = flat[i] as (typeof flat)[number]
      if (current?.step !== item.step) {
        current = { step: item.step, data: stepData(item.step, format) }
        advance(item.step.source.bytes)
      }
      return current.data[item.part] as Uint8Array
    },
  )
  renameSync(`${path}.partial`, path)
}

/** A line that rewrites itself on a terminal; every tenth part elsewhere. */
const progressBar = (total: number) => {
  let done = 0
  let shown = -1
  return (bytes: number): void => {
    done += bytes
    const percent = Math.floor((100 * done) / total)
    const step = process.stderr.isTTY ? 1 : 10
    if (Math.floor(percent / step) === Math.floor(shown / step)) return
    shown = percent
    const bar = '#'.repeat(percent / 4).padEnd(25, '.')
    process.stderr.write(
      `${process.stderr.isTTY ? '\r' : ''}[${bar}] ${percent}% of ${(total / 1e6).toFixed(0)} MB${process.stderr.isTTY && percent < 100 ? '' : '\n'}`,
    )
  }
}

const run = (options: Options): void => {
  const config = outputConfig(options)
  const shards = planShards(listTensors(options.from), options.format)
  mkdirSync(options.to, { recursive: true })
  begin(options, config)
  for (const name of COPIED)
    if (existsSync(join(options.from, name))) put(join(options.to, name), readFileSync(join(options.from, name)))
  const bytesOf = (shard: Shard) => shard.steps.reduce((sum, step) => sum + step.source.bytes, 0)
  const advance = progressBar(shards.reduce((sum, shard) => sum + bytesOf(shard), 0))
  for (const shard of shards) {
    const path = join(options.to, shard.name)
    if (existsSync(path)) advance(bytesOf(shard))
    else writeShard(path, shard, options.format, advance)
  }
  const weightMap = Object.fromEntries(
    shards.flatMap(({ name, steps }) => steps.flatMap(({ outputs }) => outputs.map((output) => [output.name, name]))),
  )
  put(
    join(options.to, 'model.safetensors.index.json'),
    `${JSON.stringify({ metadata: {}, weight_map: weightMap }, null, 1)}\n`,
  )
  const written = shards.reduce((sum, { name }) => sum + statSync(join(options.to, name)).size, 0)
  process.stderr.write(
    `${options.to}: ${options.format}, ${(written / 1e6).toFixed(1)} MB in ${shards.length} file(s)\n`,
  )
}

try {
  run(readOptions())
} catch (error) {
  process.stderr.write(`quantize: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 2
}
