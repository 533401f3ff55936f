// npm run bench:cache -- [--model DIR] [--tokens 8192] [--more 1024] [--repeats 4] [--threads N] [--stack] [--json]
// Time to first token of a prompt that is new, repeated, and repeated after a restart of the engine; and of one that goes
// on where a cached one ended, against what its new tokens cost without a cache. Prompts are 0, 16, 32 and 48 tokens longer than
// --tokens by turns, since what lies behind the last whole page (or that page, when nothing does) is always computed. --stack: also through HTTP, Worker and
// node, tokenization included, the node restarted in between. "From disk" means from files that were just written: the
// system may still hold them in memory.
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { prompt } from '../engine/engines.ts'
import { throughStack } from './cache_stack.ts'
import { numbers, withContext } from './engine.ts'
import { describeMachine } from './machine.ts'
import { median } from './statistics.ts'

const CACHE_BYTES = 2 ** 30

export interface Options {
  readonly model: string
  readonly tokens: number
  readonly more: number
  readonly repeats: number
  readonly threads: number
  readonly stack: boolean
  readonly json: boolean
}

const readOptions = (args: readonly string[]): Options => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      model: { type: 'string', default: join(import.meta.dirname, '..', '..', 'gpu-node', 'model') },
      tokens: { type: 'string', default: '8192' },
      more: { type: 'string', default: '1024' },
      repeats: { type: 'string', default: '4' },
      threads: { type: 'string', default: String(cpus().length) },
      stack: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  })
  const one = (name: 'tokens' | 'more' | 'repeats' | 'threads') => numbers(name, values[name], 1)[0] as number
  const { model, stack, json } = values
  return {
    ...{ model, stack, json },
    ...{ tokens: one('tokens'), more: one('more'), repeats: one('repeats'), threads: one('threads') },
  }
}

interface First {
  readonly milliseconds: number
  readonly cached: number
}

/** Until the first token is here. */
const firstToken = (engine: NativeEngine, tokens: Int32Array): Promise<First> =>
  new Promise((resolve, reject) => {
    const begin = performance.now()
    let first: First = { milliseconds: Number.NaN, cached: 0 }
    const spec = { cacheSalt: 'bench', maxTokens: 1, temperature: 0, topP: 1, seed: 1n, stop: [] }
    engine.submit({ ...spec, tokens }, (events) => {
      for (const event of events) {
        if (event.kind === 'start') first = { ...first, cached: event.cachedTokens }
        if (event.kind === 'tokens') first = { ...first, milliseconds: performance.now() - begin }
        if (event.kind === 'end') Number.isNaN(first.milliseconds) ? reject(new Error(event.message)) : resolve(first)
      }
    })
  })

const settle = async (engine: NativeEngine): Promise<void> => {
  while (engine.stats().diskPending > 0) await sleep(5)
}

export const runBench = async (o: Options) => {
  const cacheDir = mkdtempSync(join(tmpdir(), 'sparrow-cache-'))
  const modelDir = withContext(o.model, Math.max(16_384, 2 * (o.tokens + o.more)))
  const open = () =>
    openNativeEngine({ modelDir, tokenBytes: [], threads: o.threads, cacheDir, cacheBytes: CACHE_BYTES })
  const rows: Record<'cold' | 'memory' | 'disk' | 'longer' | 'partial', First[]> = {
    ...{ cold: [], memory: [], disk: [], longer: [], partial: [] },
  }
  let engine = await open()
  try {
    await firstToken(engine, prompt(200, engine.info.vocabSize, 1))
    for (let i = 0; i < o.repeats; i++) {
      const length = o.tokens + 16 * (i % 4)
      const of = (seed: number) => prompt(length + o.more, engine.info.vocabSize, 100 * i + seed)
      const tokens = of(2).slice(0, length)
      rows.cold.push(await firstToken(engine, tokens))
      rows.memory.push(await firstToken(engine, tokens))
      rows.partial.push(await firstToken(engine, of(2)))
      rows.longer.push(await firstToken(engine, of(3)))
      await settle(engine)
      await engine.close()
      engine = await open()
      await firstToken(engine, prompt(200, engine.info.vocabSize, 1))
      rows.disk.push(await firstToken(engine, tokens))
    }
    const { diskHits, diskCorrupt, diskBytes } = engine.stats()
    const stack = o.stack ? await throughStack(modelDir, o.tokens, o.repeats) : null
    const kind = 'bench:cache' as const
    const { tokens, more, threads } = o
    const { isa, pageBytes } = engine.info
    return {
      ...{ kind, machine: describeMachine(), isa, threads, tokens, more, pageBytes, rows },
      ...{ disk: { diskHits, diskCorrupt, diskBytes }, stack },
    }
  } finally {
    await engine.close()
    rmSync(cacheDir, { recursive: true })
  }
}

const print = ({ isa, threads, tokens, more, rows, stack }: Awaited<ReturnType<typeof runBench>>): void => {
  const ms = (firsts: readonly First[]) => median(firsts.map(({ milliseconds }) => milliseconds))
  const row = (what: string, firsts: readonly First[], whole: number) => {
    const share = ((100 * ms(firsts)) / whole).toFixed(2).padStart(7)
    const each = firsts.map(({ milliseconds, cached }) => `${milliseconds.toFixed(1)} (${cached})`).join(', ')
    console.log(`${what.padEnd(34)} ${ms(firsts).toFixed(1).padStart(7)} ms ${share}%  ${each}`)
  }
  console.log(`${isa}, ${threads} threads, time to first token: median, share of cold, each (cached tokens)`)
  const cold = ms(rows.cold)
  row(`${tokens} tokens, new`, rows.cold, cold)
  row('again, from memory', rows.memory, cold)
  row('again after a restart, from disk', rows.disk, cold)
  row(`${tokens + more} tokens, new`, rows.longer, cold)
  row(`${tokens} cached and ${more} new`, rows.partial, cold)
  const cost = ms(rows.longer) - cold
  console.log(
    `the last ${more} cost ${cost.toFixed(1)} ms without a cache, ${(ms(rows.partial) / cost).toFixed(2)} of that with`,
  )
  if (!stack) return
  console.log('through HTTP, Worker and node')
  const whole = ms(stack.cold)
  for (const [what, firsts] of Object.entries(stack)) row(what, firsts, whole)
}

if (process.argv[1] === import.meta.filename) {
  try {
    const options = readOptions(process.argv.slice(2))
    const result = await runBench(options)
    if (options.json) console.log(JSON.stringify(result))
    else print(result)
  } catch (error) {
    console.error(`bench:cache: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 2
  }
}
