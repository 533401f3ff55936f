// npm run bench:engine -- --model DIR [--threads N] [--depths 0,4096] [--prefill 512] [--decode 64] [--batch 1,4,16] [--isa X] [--dense] [--attention fastest] [--json]
// Prefill and decode at each depth, decode of many sequences at once (256 tokens each), ceilings measured in the same run.
import { cpus } from 'node:os'
import { basename, join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { machineLimits, type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { describeMachine } from './machine.ts'
import { type Ceilings, ceilings, roofline } from './roofline.ts'

const USAGE =
  'usage: npm run bench:engine -- --model DIR [--threads N] [--depths 0,4096] [--prefill 512] [--decode 64] [--batch 1,4,16] [--repeats 3] [--isa X] [--dense] [--attention fastest] [--json]'
const BATCH_DEPTH = 256

export interface Row {
  readonly what: 'prefill' | 'decode' | 'batch'
  readonly depth: number
  readonly batch: number
  /** Tokens a second: median, least and most of the repeats. */
  readonly tokensPerSecond: number
  readonly least: number
  readonly most: number
  /** Tokens a second that the machine allows. */
  readonly ceiling: number
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
    attention,
    json: values.json,
  }
}
type Options = ReturnType<typeof readOptions>

const rowOf = (
  key: Pick<Row, 'what' | 'depth' | 'batch'>,
  tokens: number,
  seconds: readonly number[],
  ceiling: number,
): Row => {
  const speeds = seconds.map((s) => tokens / s).sort((a, b) => a - b)
  return {
    ...key,
    tokensPerSecond: speeds[speeds.length >> 1] ?? 0,
    least: speeds[0] ?? 0,
    most: speeds.at(-1) ?? 0,
    ceiling,
  }
}

const measure = (engine: NativeEngine, o: Options, ceiling: Ceilings): Row[] => {
  const rows: Row[] = []
  for (const depth of o.depths) {
    const times = engine.bench({ depth, prefill: o.prefill, decode: o.decode, repeats: o.repeats, batch: 0 })
    const [prefill, decode] = [ceiling.prefill(depth + o.prefill / 2), ceiling.decode(depth + o.decode / 2, 1)]
    rows.push(rowOf({ what: 'prefill', depth, batch: 1 }, o.prefill, times.prefill, prefill))
    rows.push(rowOf({ what: 'decode', depth, batch: 1 }, o.decode, times.decode, decode))
  }
  for (const batch of o.batch) {
    const { decode } = engine.bench({ depth: BATCH_DEPTH, prefill: 1, decode: o.decode, repeats: o.repeats, batch })
    const most = ceiling.decode(BATCH_DEPTH + o.decode / 2, batch)
    rows.push(rowOf({ what: 'batch', depth: BATCH_DEPTH, batch }, o.decode * batch, decode, most))
  }
  return rows
}

/** A result file may be published: it names a folder of this checkout from its root, any other by its last part. */
const nameOf = (dir: string): string => {
  const path = relative(join(import.meta.dirname, '..', '..'), resolve(dir))
  return path.startsWith('..') ? basename(path) : path
}

export const runBench = async (o: Options) => {
  const limits = machineLimits(o.threads)
  const engine = await openNativeEngine({
    modelDir: o.model,
    tokenBytes: [],
    kvPages: 1,
    threads: o.threads,
    isa: o.isa,
    dense: o.dense,
    attention: o.attention,
  })
  try {
    const rows = measure(engine, o, ceilings(roofline(o.model), limits))
    return {
      kind: 'bench:engine' as const,
      machine: describeMachine(),
      model: nameOf(o.model),
      isa: engine.info.isa,
      threads: o.threads,
      dense: o.dense,
      limits,
      rows,
    }
  } finally {
    await engine.close()
  }
}

const print = (result: Awaited<ReturnType<typeof runBench>>): void => {
  const { limits, isa, threads } = result
  console.log(
    `${isa}, ${threads} threads; measured: ${(limits.readBytes / 1e9).toFixed(1)} GB/s, ${(limits.bf16Flops / 1e9).toFixed(0)} GFLOP/s BF16`,
  )
  for (const row of result.rows) {
    const speed = `${row.tokensPerSecond.toFixed(1).padStart(8)} tok/s (${row.least.toFixed(1)} to ${row.most.toFixed(1)})`
    const fraction =
      Number.isFinite(row.ceiling) && row.ceiling > 0
        ? `${((100 * row.tokensPerSecond) / row.ceiling).toFixed(0)}% of ${row.ceiling.toFixed(0)}`
        : ''
    console.log(
      `${row.what.padEnd(8)} depth ${String(row.depth).padEnd(6)} batch ${String(row.batch).padEnd(3)} ${speed}  ${fraction}`,
    )
  }
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
