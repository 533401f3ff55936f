// npm run bench:formats -- --model DIR [--formats int8,fp8,int4] [--depth 0] [--decode 64] [--rounds 12] [--threads N] [--isa X] [--json FILE]
// Decode of a BF16 checkpoint and of its quantised forms, engines in turn in one process: the host's speed moves, so
// each round gives its own ratio. Beside it what the bytes read would allow.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { FORMATS, type Format } from '../../gpu-node/quantize/formats.ts'
import { numbers } from './engine.ts'
import { describeMachine } from './machine.ts'
import { roofline } from './roofline.ts'
import { median } from './statistics.ts'

const USAGE =
  'usage: npm run bench:formats -- --model DIR [--formats int8,fp8,int4] [--depth 0] [--decode 64] [--rounds 12] [--threads N] [--isa X] [--json FILE]'

const readOptions = (args: readonly string[]) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      model: { type: 'string' },
      formats: { type: 'string', default: 'int8,fp8,int4' },
      depth: { type: 'string', default: '0' },
      decode: { type: 'string', default: '64' },
      rounds: { type: 'string', default: '12' },
      threads: { type: 'string', default: String(cpus().length) },
      isa: { type: 'string', default: 'auto' },
      json: { type: 'string' },
    },
  })
  if (!values.model || !existsSync(join(values.model, 'config.json'))) throw new Error(USAGE)
  const formats = values.formats.split(',').map((name) => {
    const format = FORMATS.find((known) => known === name)
    if (!format) throw new Error(`--formats: ${name} is none of ${FORMATS.join(', ')}`)
    return format
  })
  const one = (name: 'depth' | 'decode' | 'rounds' | 'threads', least: number) =>
    numbers(name, values[name], least)[0] as number
  return {
    model: values.model,
    formats,
    depth: one('depth', 0),
    decode: one('decode', 1),
    rounds: one('rounds', 1),
    threads: one('threads', 1),
    isa: values.isa,
    json: values.json,
  }
}
type Options = ReturnType<typeof readOptions>

const quantized = (from: string, format: Format, folder: string): string => {
  const to = join(folder, format)
  console.error(`bench:formats: making ${format} ...`)
  const main = join(import.meta.dirname, '..', '..', 'gpu-node', 'quantize', 'main.ts')
  const run = spawnSync(process.execPath, [main, '--from', from, '--to', to, '--format', format], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (run.status !== 0) throw new Error(`quantize ended with ${run.status ?? run.signal}`)
  return to
}

interface Contender {
  readonly name: 'bf16' | Format
  readonly engine: NativeEngine
  /** Bytes of a step: as the checkpoint has them. */
  readonly bytes: number
  readonly speeds: number[]
}

const open = async (name: Contender['name'], dir: string, o: Options): Promise<Contender> => ({
  name,
  engine: await openNativeEngine({ modelDir: dir, tokenBytes: [], kvPages: 1, threads: o.threads, isa: o.isa }),
  bytes: roofline(dir).stepBytes(o.depth + o.decode / 2, 1),
  speeds: [],
})

const runRounds = (contenders: readonly Contender[], o: Options): void => {
  const plan = { depth: o.depth, prefill: 1, decode: o.decode, repeats: 1, batch: 0, threads: 0, dense: false }
  for (let round = 0; round <= o.rounds; round++) {
    for (const { engine, speeds } of contenders) {
      const seconds = engine.bench(plan).decode[0] as number
      if (round > 0) speeds.push(o.decode / seconds) // the first round warms up
    }
  }
}

export const runFormatsBench = async (o: Options) => {
  const folder = mkdtempSync(join(tmpdir(), 'sparrow-formats-'))
  const contenders: Contender[] = []
  try {
    contenders.push(await open('bf16', o.model, o))
    for (const format of o.formats) contenders.push(await open(format, quantized(o.model, format, folder), o))
    runRounds(contenders, o)
    const original = contenders[0] as Contender
    return {
      kind: 'bench:formats' as const,
      machine: describeMachine(),
      isa: original.engine.info.isa,
      depth: o.depth,
      rows: contenders.map(({ name, bytes, speeds }) => {
        const ratios = speeds.map((speed, round) => speed / (original.speeds[round] as number))
        return {
          name,
          tokensPerSecond: median(speeds),
          ratio: median(ratios),
          least: Math.min(...ratios),
          most: Math.max(...ratios),
          allowed: original.bytes / bytes,
          gigabytesPerSecond: (bytes * median(speeds)) / 1e9,
        }
      }),
    }
  } finally {
    for (const { engine } of contenders) await engine.close()
    rmSync(folder, { recursive: true })
  }
}

if (process.argv[1] === import.meta.filename) {
  try {
    const options = readOptions(process.argv.slice(2))
    const result = await runFormatsBench(options)
    if (options.json) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`)
    console.log(`${result.machine.cpu}, ${options.threads} threads, ${result.isa}, depth ${result.depth}`)
    for (const row of result.rows)
      console.log(
        `${row.name.padEnd(5)} ${row.tokensPerSecond.toFixed(1).padStart(7)} tok/s, ${row.gigabytesPerSecond.toFixed(1)} GB/s  ${row.ratio.toFixed(2)} times bf16 (${row.least.toFixed(2)} to ${row.most.toFixed(2)}); bytes allow ${row.allowed.toFixed(2)}`,
      )
  } catch (error) {
    console.error(`bench:formats: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 2
  }
}
