// npm run bench:itl -- [--model DIR] [--tokens 32768] [--streams 1,8] [--repeats 3] [--threads N] [--json]
// Time between two tokens of running streams, idle and while a long prompt prefills beside them; how long that prompt takes
// with and without them. Streams begin with 64 tokens and sample whatever comes; gaps are taken where events reach JavaScript. A
// stream grows while the prompt is computed, and its tokens cost more at depth, so idle is measured before and after.
import { cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { SequenceSpec } from '../../gpu-node/engine/engine.ts'
import { type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { prompt } from '../engine/engines.ts'
import { numbers, withContext } from './engine.ts'
import { describeMachine } from './machine.ts'
import { median } from './statistics.ts'

const IDLE_TOKENS = 300
const STREAM_TOKENS = 64

const readOptions = (args: readonly string[]) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      model: { type: 'string', default: join(import.meta.dirname, '..', '..', 'gpu-node', 'model') },
      tokens: { type: 'string', default: '32768' },
      streams: { type: 'string', default: '1,8' },
      repeats: { type: 'string', default: '3' },
      threads: { type: 'string', default: String(cpus().length) },
      json: { type: 'boolean', default: false },
    },
  })
  const one = (name: 'tokens' | 'repeats' | 'threads') => numbers(name, values[name], 1)[0] as number
  return {
    ...{ model: values.model, json: values.json, streams: numbers('streams', values.streams, 1) },
    ...{ tokens: one('tokens'), repeats: one('repeats'), threads: one('threads') },
  }
}

const SPEC = { account: 'bench', temperature: 0, topP: 1, seed: 1n, stop: [], ignoreEos: true }

/** Milliseconds between the tokens of streams, as they come, until `stop`. */
class Streams {
  readonly #handles: { cancel(): void }[] = []
  readonly #ends: Promise<void>[] = []
  gaps: number[] = []

  constructor(engine: NativeEngine, count: number, maxTokens: number) {
    for (let i = 0; i < count; i++) this.#start(engine, i, maxTokens)
  }

  #start(engine: NativeEngine, index: number, maxTokens: number): void {
    let last = Number.NaN
    const tokens = prompt(STREAM_TOKENS, engine.info.vocabSize, index + 1)
    const end = new Promise<void>((resolve) => {
      const spec: SequenceSpec = { ...SPEC, tokens, cacheSalt: `stream ${index}`, maxTokens }
      const handle = engine.submit(spec, (events) => {
        for (const event of events) {
          if (event.kind === 'end') resolve()
          if (event.kind !== 'tokens') continue
          const now = performance.now()
          if (!Number.isNaN(last)) this.gaps.push((now - last) / event.ids.length)
          last = now
        }
      })
      this.#handles.push(handle)
    })
    this.#ends.push(end)
  }

  async atLeast(count: number): Promise<void> {
    while (this.gaps.length < count) await new Promise((done) => setTimeout(done, 2))
  }

  async stop(): Promise<void> {
    for (const handle of this.#handles) handle.cancel()
    await Promise.all(this.#ends)
  }
}

const prefill = async (engine: NativeEngine, tokens: Int32Array, salt: string): Promise<number> => {
  const begin = performance.now()
  await new Promise<void>((resolve) => {
    engine.submit({ ...SPEC, account: 'long', tokens, cacheSalt: salt, maxTokens: 1 }, (events) => {
      if (events.some((event) => event.kind === 'end')) resolve()
    })
  })
  return performance.now() - begin
}

const at = (values: readonly number[], part: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? Number.NaN

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length

const once = async (engine: NativeEngine, tokens: Int32Array, count: number, salt: string) => {
  const streams = new Streams(engine, count, 2 * tokens.length - STREAM_TOKENS)
  await streams.atLeast(count * 20)
  streams.gaps = []
  await streams.atLeast(count * IDLE_TOKENS)
  const idle = streams.gaps
  streams.gaps = []
  const milliseconds = await prefill(engine, tokens, salt)
  const beside = streams.gaps
  streams.gaps = []
  await streams.atLeast(count * IDLE_TOKENS)
  const after = streams.gaps
  await streams.stop()
  return {
    ...{
      afterP50: at(after, 0.5),
      afterP99: at(after, 0.99),
      mean: mean(beside),
      idleMean: (mean(idle) + mean(after)) / 2,
    },
    ...{ idleP50: at(idle, 0.5), idleP99: at(idle, 0.99), besideP50: at(beside, 0.5), besideP99: at(beside, 0.99) },
    ...{ gaps: beside.length, prefillMs: milliseconds, tokens: tokens.length },
  }
}

type Row = Awaited<ReturnType<typeof once>>

const middle = (rows: readonly Row[]): Row =>
  Object.fromEntries(
    Object.keys(rows[0] as Row).map((name) => [name, median(rows.map((row) => row[name as keyof Row]))]),
  ) as Row

export const runBench = async (o: ReturnType<typeof readOptions>) => {
  const modelDir = withContext(o.model, 2 * o.tokens)
  const engine = await openNativeEngine({ modelDir, tokenBytes: [], threads: o.threads })
  try {
    const alone: number[] = []
    const rows: { streams: number; row: Row; aloneMs: number }[] = []
    for (const streams of o.streams) {
      const repeats: Row[] = []
      for (let i = 0; i < o.repeats; i++) {
        const tokens = prompt(o.tokens, engine.info.vocabSize, 1000 + i)
        alone.push(await prefill(engine, tokens, `alone ${streams} ${i}`))
        repeats.push(await once(engine, tokens, streams, `beside ${streams} ${i}`))
      }
      rows.push({ streams, row: middle(repeats), aloneMs: median(alone) })
    }
    return rows
  } finally {
    await engine.close()
  }
}

const main = async (): Promise<void> => {
  const options = readOptions(process.argv.slice(2))
  const rows = await runBench(options)
  const machine = describeMachine()
  if (options.json) return void process.stdout.write(`${JSON.stringify({ machine, options, rows })}\n`)
  const ms = (value: number): string => value.toFixed(2)
  process.stdout.write(`${JSON.stringify(machine)}\n`)
  for (const { streams, row, aloneMs } of rows) {
    const idle = `${ms(row.idleP50)} / ${ms(row.idleP99)}`
    const beside = `${ms(row.besideP50)} / ${ms(row.besideP99)}`
    const after = `${ms(row.afterP50)} / ${ms(row.afterP99)}`
    const around = (before: number, behind: number): number => (before + behind) / 2
    const p50 = row.besideP50 / around(row.idleP50, row.afterP50)
    const p99 = row.besideP99 / around(row.idleP99, row.afterP99)
    const times = `p50 ${ms(p50)}, mean ${ms(row.mean / row.idleMean)}, p99 ${ms(p99)} times idle`
    process.stdout.write(
      `${streams} streams: ITL p50 / p99 idle ${idle} ms before, ${after} after; beside ${row.tokens} tokens ${beside} ms (${times}); ` +
        `prefill ${(row.prefillMs / 1000).toFixed(1)} s, alone ${(aloneMs / 1000).toFixed(1)} s\n`,
    )
  }
}

if (process.argv[1] === import.meta.filename)
  await main().catch((error: unknown) => {
    console.error(`bench:itl: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 2
  })
