// npm run bench:engine -- --model DIR [--threads N] [--depths 0,4096] [--prefill 512] [--decode 64] [--batch 1,4,16] [--isa X] [--dense] [--attention fastest] [--both] [--context N] [--json]
// Prefill and decode at each depth, decode of many sequences at once (256 tokens each), ceilings measured around each repeat; a
// sampled token's time, which no row contains.
// --both also decodes attending to every position; --context lets a model go beyond the context it was made for.
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { basename, join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import {
  type BenchTimes,
  type MachineLimits,
  type NativeEngine,
  openNativeEngine,
} from '../../gpu-node/engine/native.ts'
import { describeMachine } from './machine.ts'
import { ceilings, roofline } from './roofline.ts'
import { median } from './statistics.ts'

const USAGE =
  'usage: npm run bench:engine -- --model DIR [--threads N] [--depths 0,4096] [--prefill 512] [--decode 64] [--batch 1,4,16] [--repeats 3] [--isa X] [--dense] [--attention fastest] [--both] [--context N] [--json]'
const BATCH_DEPTH = 256

export interface Row {
  /** dense: decode that attends to every position, from the same cache. */
  readonly what: 'prefill' | 'decode' | 'dense' | 'batch'
  readonly depth: number
  readonly batch: number
  /** Tokens a second: median, least and most of the repeats. */
  readonly tokensPerSecond: number
  readonly least: number
  readonly most: number
  /** Tokens a second that the machine allows: median of what it could do around each repeat. */
  readonly ceiling: number
  /** Median of the repeats' own fractions. A host's speed changes: only a limit taken at the same time says something. */
  readonly fraction: number
  /** Of a decoded token: bytes read at least, microseconds in attention and in the indexer (scores and choice). */
  readonly bytes?: number
  readonly attentionMicros?: number
  readonly indexerMicros?: number
}

/** Whole numbers from `least`, separated by commas. */
export const numbers = (name: string, text: string, least: number): number[] =>
  text.split(',').map((part) => {
    const value = Number(part)
    if (part === '' || !Number.isInteger(value) || value < least)
      throw new Error(`--${name}: ${part || 'nothing'} is no whole number from ${least}`)
    return value
  })

export const readOptions = (args: readonly string[]) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      model: { type: 'string' },
      threads: { type: 'string', default: String(cpus().length) },
      depths: { type: 'string', default: '0,4096' },
      prefill: { type: 'string', default: '512' },
      decode: { type: 'string', default: '64' },
      batch: { type: 'string', default: '1,4,16' },
      repeats: { type: 'string', default: '3' },
      isa: { type: 'string', default: 'auto' },
      dense: { type: 'boolean', default: false },
      both: { type: 'boolean', default: false },
      context: { type: 'string' },
      attention: { type: 'string', default: 'invariant' },
      json: { type: 'boolean', default: false },
    },
  })
  const attention = (['invariant', 'fastest'] as const).find((form) => form === values.attention)
  if (!values.model || !attention) throw new Error(USAGE)
  const one = (name: 'threads' | 'prefill' | 'decode' | 'repeats') => numbers(name, values[name], 1)[0] as number
  return {
    model: values.model,
    threads: one('threads'),
    depths: numbers('depths', values.depths, 0),
    prefill: one('prefill'),
    decode: one('decode'),
    batch: values.batch === '' ? [] : numbers('batch', values.batch, 1),
    repeats: one('repeats'),
    isa: values.isa,
    dense: values.dense,
    both: values.both,
    context: values.context === undefined ? null : (numbers('context', values.context, 1)[0] as number),
    attention,
    json: values.json,
  }
}
type Options = ReturnType<typeof readOptions>

/** Speeds of the repeats, and their fractions of what the machine allowed around each of them. */
const rowOf = (
  key: Pick<Row, 'what' | 'depth' | 'batch'>,
  tokens: number,
  seconds: readonly number[],
  ceilingsOfRepeats: readonly number[],
): Row => {
  const speeds = seconds.map((s) => tokens / s)
  return {
    ...key,
    tokensPerSecond: median(speeds),
    least: Math.min(...speeds),
    most: Math.max(...speeds),
    ceiling: median(ceilingsOfRepeats),
    fraction: median(speeds.map((speed, i) => speed / (ceilingsOfRepeats[i] as number))),
  }
}

/** Microseconds of one token sampled from the model's vocabulary; the engine samples the sequences of a step in turn. */
interface SamplingMicros {
  readonly greedy: number
  readonly drawn: number
  readonly nucleus: number
}

const measure = (
  engine: NativeEngine,
  o: Options,
): { rows: Row[]; limits: MachineLimits[]; sampling: SamplingMicros } => {
  const rows: Row[] = []
  const limits: MachineLimits[] = []
  const sampled: BenchTimes[] = []
  const roof = roofline(o.model)
  const repeat = (depth: number, batch: number, prefill: number): BenchTimes => {
    const plan = { depth, prefill, decode: o.decode, repeats: o.repeats, batch, threads: o.threads }
    const times = engine.bench({ ...plan, dense: o.both && batch === 0 })
    limits.push(...times.limits)
    sampled.push(times)
    return times
  }
  const sampling = (how: keyof SamplingMicros): number => 1e6 * median(sampled.flatMap((times) => times[how]))
  for (const depth of o.depths) {
    const times = repeat(depth, 0, o.prefill)
    const each = times.limits.map((l) => ceilings(roof, l))
    const keys = depth + o.decode / 2
    const prefillAllowed = each.map((c) => c.prefill(depth + o.prefill / 2))
    const decodeAllowed = each.map((c) => c.decode(keys, 1))
    const micros = (seconds: readonly number[]): number => (1e6 * median(seconds)) / o.decode
    rows.push(rowOf({ what: 'prefill', depth, batch: 1 }, o.prefill, times.prefill, prefillAllowed), {
      ...rowOf({ what: 'decode', depth, batch: 1 }, o.decode, times.decode, decodeAllowed),
      bytes: roof.stepBytes(keys, 1),
      attentionMicros: micros(times.attend),
      indexerMicros: micros(times.select),
    })
    if (!o.both) continue
    const dense = roofline(o.model, true)
    const allowed = times.limits.map((l) => ceilings(dense, l).decode(keys, 1))
    rows.push({
      ...rowOf({ what: 'dense', depth, batch: 1 }, o.decode, times.dense, allowed),
      bytes: dense.stepBytes(keys, 1),
    })
  }
  for (const batch of o.batch) {
    const { decode, limits: around } = repeat(BATCH_DEPTH, batch, 1)
    const allowed = around.map((l) => ceilings(roof, l).decode(BATCH_DEPTH + o.decode / 2, batch))
    rows.push(rowOf({ what: 'batch', depth: BATCH_DEPTH, batch }, o.decode * batch, decode, allowed))
  }
  const all = { greedy: sampling('greedy'), drawn: sampling('drawn'), nucleus: sampling('nucleus') }
  return { rows, limits, sampling: all }
}

/** A result file may be published: it names a folder of this checkout from its root, any other by its last part. */
const nameOf = (dir: string): string => {
  const path = relative(join(import.meta.dirname, '..', '..'), resolve(dir))
  return path.startsWith('..') ? basename(path) : path
}

/** A folder with the same files and another max_position_embeddings. */
export const withContext = (dir: string, context: number): string => {
  const copy = mkdtempSync(join(tmpdir(), 'sparrow-bench-'))
  process.on('exit', () => rmSync(copy, { recursive: true }))
  for (const name of readdirSync(dir)) if (name !== 'config.json') symlinkSync(resolve(dir, name), join(copy, name))
  const config: unknown = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8'))
  writeFileSync(
    join(copy, 'config.json'),
    JSON.stringify(Object.assign({}, config, { max_position_embeddings: context })),
  )
  return copy
}

export const runBench = async (o: Options) => {
  const engine = await openNativeEngine({
    modelDir: o.context === null ? o.model : withContext(o.model, o.context),
    tokenBytes: [],
    kvPages: 1,
    threads: o.threads,
    isa: o.isa,
    dense: o.dense,
    attention: o.attention,
  })
  try {
    const { rows, limits, sampling } = measure(engine, o)
    return {
      kind: 'bench:engine' as const,
      machine: describeMachine(),
      model: nameOf(o.model),
      isa: engine.info.isa,
      threads: o.threads,
      dense: o.dense,
      limits,
      rows,
      sampling,
    }
  } finally {
    await engine.close()
  }
}

const print = (result: Awaited<ReturnType<typeof runBench>>): void => {
  const { limits, isa, threads } = result
  const range = (values: readonly number[]): string =>
    [Math.min(...values), median(values), Math.max(...values)].map((x) => (x / 1e9).toFixed(0)).join(' / ')
  console.log(
    `${isa}, ${threads} threads; around the repeats, least / median / most: ${range(limits.map((l) => l.readBytes))} GB/s, ${range(limits.map((l) => l.bf16Flops))} GFLOP/s BF16`,
  )
  for (const row of result.rows) {
    const speed = `${row.tokensPerSecond.toFixed(1).padStart(8)} tok/s (${row.least.toFixed(1)} to ${row.most.toFixed(1)})`
    const fraction =
      Number.isFinite(row.fraction) && row.ceiling > 0
        ? `${(100 * row.fraction).toFixed(0)}% of ${row.ceiling.toFixed(0)}`
        : ''
    const parts = [
      ...(row.bytes === undefined ? [] : [`${(row.bytes / 1e6).toFixed(1)} MB a token`]),
      ...(row.attentionMicros === undefined ? [] : [`attention ${row.attentionMicros.toFixed(0)} us`]),
      ...(row.indexerMicros ? [`indexer ${row.indexerMicros.toFixed(0)} us`] : []),
    ]
    console.log(
      `${row.what.padEnd(8)} depth ${String(row.depth).padEnd(6)} batch ${String(row.batch).padEnd(3)} ${speed}  ${[fraction, ...parts].filter(Boolean).join(', ')}`,
    )
  }
  const { greedy, drawn, nucleus } = result.sampling
  console.log(
    `a token sampled: ${greedy.toFixed(0)} us at temperature 0, ${drawn.toFixed(0)} us at 1, ${nucleus.toFixed(0)} us with top_p 0.95 too`,
  )
}

if (process.argv[1] === import.meta.filename) {
  try {
    const options = readOptions(process.argv.slice(2))
    const result = await runBench(options)
    if (options.json) console.log(JSON.stringify(result))
    else print(result)
  } catch (error) {
    console.error(`bench:engine: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 2
  }
}
