// npm run bench:serve: an open loop of Poisson arrivals against the whole API, streamed. Options: serve/options.ts. Times count from
// when a request was due, so that a generator or a queue that lags is never left out.
import { join } from 'node:path'
import { loadTokenizer } from '../../gpu-node/tokenizer.ts'
import { withContext } from './engine.ts'
import { describeMachine } from './machine.ts'
import { ask, type Target } from './serve/client.ts'
import { runLoad } from './serve/load.ts'
import { type Options, readOptions } from './serve/options.ts'
import { arrivals } from './serve/random.ts'
import { cacheGain, curvesOf, type Point, type ServeResult } from './serve/result.ts'
import { type Spread, summarise } from './serve/summary.ts'
import { bootServed, remoteServed, type Served } from './serve/target.ts'
import { type Requests, requestsOf, tokensPerWord } from './serve/workload.ts'

const MODEL_DIR = join(import.meta.dirname, '..', '..', 'gpu-node', 'model')
const GRACE_MS = 10_000
const TIMEOUT_MS = 120_000
/** What the chat format adds, with some to spare. */
const ROOM_TOKENS = 512

interface Loaded {
  readonly cache: Point['cache']
  readonly served: Served
}

const boot = async (o: Options): Promise<Loaded[]> => {
  if (o.url) {
    if (!o.key) throw new Error('--key or SPARROW_API_KEY: needed with --url')
    return [{ cache: null, served: remoteServed(o.url, o.key) }]
  }
  const modelDir = withContext(MODEL_DIR, Math.max(4096, Math.ceil(1.1 * o.workload.isl) + o.osl + ROOM_TOKENS))
  const caches = o.compareCache ? (['on', 'off'] as const) : (['on'] as const)
  const loaded: Loaded[] = []
  for (const cache of caches) loaded.push({ cache, served: await bootServed(modelDir, o.model, cache) })
  return loaded
}

const warmUp = async (target: Target, requests: Requests): Promise<void> => {
  for (const messages of requests.warmUp) {
    const { error } = await ask(target, messages, performance.now(), AbortSignal.timeout(TIMEOUT_MS))
    if (error !== undefined) throw new Error(`the first request failed: ${error}`)
  }
}

export const runBench = async (o: Options, say: (point: Point) => void): Promise<ServeResult> => {
  const perWord = await tokensPerWord(await loadTokenizer(MODEL_DIR))
  const loaded = await boot(o)
  const points: Point[] = []
  try {
    let round = 0
    for (const rate of o.rates) {
      for (let repeat = 0; repeat < o.repeats; repeat++) {
        round++
        // Each round has texts of its own: what one left in the cache must not help the next.
        const seed = o.workload.seed * 1000 + round
        const requests = requestsOf({ ...o.workload, seed }, perWord)
        const times = arrivals(rate, o.duration, seed)
        for (const { cache, served } of loaded) {
          const target: Target = {
            ...{ url: served.url, key: served.key, model: o.model, osl: o.osl, timeoutMs: TIMEOUT_MS },
          }
          await warmUp(target, requests)
          const one = (...[messages, due, stop]: Parameters<Parameters<typeof runLoad>[0]>) =>
            ask(target, messages, due, stop)
          const samples = await runLoad(one, { times, of: requests.of, graceMs: GRACE_MS })
          const point = { cache, rate, ...summarise(samples, o.duration, o.slo) }
          points.push(point)
          say(point)
          await served.idle()
        }
      }
    }
  } finally {
    await Promise.all(loaded.map(({ served }) => served.stop()))
  }
  const { model, workload, osl, duration, slo } = o
  return { kind: 'bench:serve', machine: describeMachine(), model, workload, osl, duration, slo, points }
}

const print = (point: Point): void => {
  const { cache, rate, sent, completed, goodput, cachedShare, outputTokensPerSecond, errors, lag } = point
  const times = (s: Spread) => `${s.p50.toFixed(0)}/${s.p90.toFixed(0)}/${s.p99.toFixed(0)}`
  console.error(
    [
      `${cache === null ? '' : `cache ${cache}, `}${rate}/s: ${completed} of ${sent} whole, goodput ${goodput.toFixed(2)}/s`,
      `ttft ${times(point.ttft)} ms, itl ${times(point.itl)}, e2e ${times(point.e2e)} (p50/p90/p99)`,
      `${outputTokensPerSecond.toFixed(0)} tok/s out, ${(100 * cachedShare).toFixed(0)}% of the prompt cached`,
      `generator late by ${lag.p99.toFixed(1)} ms (p99)${Object.keys(errors).length > 0 ? `, ${JSON.stringify(errors)}` : ''}`,
    ].join('; '),
  )
}

const conclude = ({ points }: ServeResult): void => {
  for (const { cache, best } of curvesOf(points))
    console.log(`best goodput${cache === null ? '' : `, prefix cache ${cache}`}: ${best.toFixed(2)} requests a second`)
  const gain = cacheGain(points)
  if (gain !== undefined) console.log(`with the prefix cache: ${gain.toFixed(2)} times that without`)
}

if (process.argv[1] === import.meta.filename) {
  try {
    const options = readOptions(process.argv.slice(2))
    const result = await runBench(options, print)
    if (options.json) console.log(JSON.stringify(result))
    else conclude(result)
    process.exit(0)
  } catch (error) {
    console.error(`bench:serve: ${error instanceof Error ? error.message : String(error)}`)
    process.exit(2)
  }
}
