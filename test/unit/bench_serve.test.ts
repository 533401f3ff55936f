// The parts of bench:serve: arrivals, texts, figures, the open loop, and what the client makes of answers. No speed is tested.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ask, type Target } from '../bench/serve/client.ts'
import { runLoad } from '../bench/serve/load.ts'
import { readOptions } from '../bench/serve/options.ts'
import { arrivals, randomOf } from '../bench/serve/random.ts'
import { cacheGain, curvesOf, type Point } from '../bench/serve/result.ts'
import { isGood, type Sample, spread, summarise, tpot } from '../bench/serve/summary.ts'
import { requestsOf, type WorkloadOptions } from '../bench/serve/workload.ts'

test('arrivals are those of a Poisson process: seeded, ascending, gaps of the mean and the spread of an exponential', () => {
  const times = arrivals(50, 400, 7)
  expect(arrivals(50, 400, 7)).toEqual(times)
  expect(times).toHaveLength(20_000)
  expect(arrivals(50, 400, 8)).not.toEqual(times)
  expect(times.every((at, i) => at < 400_000 && at > (times[i - 1] ?? 0))).toBe(true)
  const gaps = times.slice(1).map((at, i) => at - (times[i] ?? 0))
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length
  const deviation = Math.sqrt(gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length)
  expect(mean).toBeGreaterThan(19)
  expect(mean).toBeLessThan(21)
  expect(deviation / mean).toBeGreaterThan(0.95)
  expect(deviation / mean).toBeLessThan(1.05)
})

test('random numbers fill the unit interval', () => {
  const random = randomOf(3)
  const bins = new Array<number>(10).fill(0)
  for (let i = 0; i < 10_000; i++) {
    const bin = Math.floor(random() * 10)
    bins[bin] = (bins[bin] ?? 0) + 1
  }
  expect(bins).toHaveLength(10)
  expect(Math.min(...bins)).toBeGreaterThan(800)
})

const options: WorkloadOptions = {
  ...{ workload: 'shared', isl: 1000, prefixShare: 0.8, prefixes: 3, turns: 4, conversations: 2, seed: 5 },
}
const wordsIn = (messages: readonly { content: string }[]) =>
  messages.reduce((sum, { content }) => sum + content.split(' ').length, 0)

test('shared: a system prompt of the share asked for, the rest its own, all of it warmed up once', () => {
  const { of, warmUp } = requestsOf(options, 2)
  expect(of(7)).toEqual(requestsOf(options, 2).of(7))
  expect(wordsIn(of(0))).toBe(500)
  expect(wordsIn(of(0).slice(0, 1))).toBe(400)
  expect(of(0)[0]).toEqual(of(3)[0])
  expect(of(0)[0]).not.toEqual(of(1)[0])
  expect(of(0)[1]).not.toEqual(of(3)[1])
  expect(warmUp.map(([first]) => first)).toEqual([0, 1, 2].map((i) => of(i)[0]))
  expect(requestsOf({ ...options, seed: 6 }, 2).of(0)[0]).not.toEqual(of(0)[0])
})

test('random: nothing in common', () => {
  const { of } = requestsOf({ ...options, workload: 'random' }, 2)
  expect(wordsIn(of(4))).toBe(500)
  expect(new Set(Array.from({ length: 50 }, (_, i) => of(i)[0]?.content.slice(0, 200))).size).toBe(50)
})

test('multi-turn: each turn begins with the whole one before it; then other conversations start', () => {
  const { of } = requestsOf({ ...options, workload: 'multi-turn' }, 2)
  expect(of(2).slice(0, 1)).toEqual(of(0))
  expect(of(6).slice(0, 5)).toEqual(of(4))
  expect(of(6).map(({ role }) => role)).toEqual(['user', 'assistant', 'user', 'assistant', 'user', 'assistant', 'user'])
  expect(of(8)).toHaveLength(1)
  expect(of(8)).not.toEqual(of(0))
  expect(of(1)).not.toEqual(of(0))
})

const sample = (extra: Partial<Sample> = {}): Sample => ({
  ...{ lag: 0, ttft: 100, gaps: [10, 10], e2e: 120, promptTokens: 100, cachedTokens: 64, outputTokens: 3 },
  error: undefined,
  ...extra,
})

test('a spread names percentiles and mean', () => {
  expect(spread([1, 2, 6])).toEqual({ p50: 2, p90: 6, p99: 6, mean: 3 })
})

test('goodput counts whole answers whose first token and pace are in time', () => {
  const slo = { ttftMs: 200, itlMs: 15 }
  expect(tpot(sample())).toBe(10)
  expect(tpot(sample({ outputTokens: 1 }))).toBe(0)
  const samples = [
    sample(),
    sample({ ttft: 201 }),
    sample({ e2e: 131 }),
    sample({ error: 'timeout' }),
    sample({ ttft: undefined, error: '503 no_node' }),
    sample({ ttft: 200, e2e: 230, lag: 9 }),
  ]
  expect(samples.map((one) => isGood(one, slo))).toEqual([true, false, false, false, false, true])
  const summary = summarise(samples, 2, slo)
  expect(summary).toMatchObject({ sent: 6, completed: 4, good: 2, goodput: 1, requestsPerSecond: 2, cachedShare: 0.64 })
  expect(summary.errors).toEqual({ timeout: 1, '503 no_node': 1 })
  expect(summary.outputTokensPerSecond).toBe(6)
  expect(summary.lag.max).toBe(9)
  expect(summarise([], 1, slo)).toMatchObject({ sent: 0, goodput: 0, ttft: { p99: 0 }, cachedShare: 0 })
})

test('curves: repeats averaged, rates in order, the gain between the best of both', () => {
  const point = (cache: Point['cache'], rate: number, goodput: number): Point => ({
    ...{ cache, rate, ...summarise([sample()], 1, { ttftMs: 1, itlMs: 1 }) },
    goodput,
  })
  const points = [point('on', 4, 3), point('off', 2, 1), point('on', 2, 2), point('on', 4, 4), point('off', 4, 0)]
  expect(curvesOf(points)).toEqual([
    {
      cache: 'on',
      best: 3.5,
      goodput: [
        [2, 2],
        [4, 3.5],
      ],
    },
    {
      cache: 'off',
      best: 1,
      goodput: [
        [2, 1],
        [4, 0],
      ],
    },
  ])
  expect(cacheGain(points)).toBe(3.5)
  expect(cacheGain([point(null, 1, 1)])).toBeUndefined()
})

test('arrivals wait for no answer, and what is late is cut off', async () => {
  const sent: number[] = []
  const samples = await runLoad(
    (_, due, stop) => {
      sent.push(due)
      return new Promise((done) => stop.addEventListener('abort', () => done(sample({ error: 'not done in time' }))))
    },
    { times: [0, 5, 6], of: () => [], graceMs: 20 },
  )
  expect(sent.map((at) => Math.round(at - (sent[0] ?? 0)))).toEqual([0, 5, 6])
  expect(samples).toHaveLength(3)
})

let server: Server
let answer: (body: string) => { status?: number; frames: string[]; cut?: boolean }
let asked = ''
beforeAll(async () => {
  server = createServer(async (request, response) => {
    asked = ''
    for await (const text of request.setEncoding('utf8')) asked += text
    const { status = 200, frames, cut } = answer(asked)
    response.writeHead(status)
    for (const frame of frames) {
      response.write(frame)
      await new Promise((done) => setTimeout(done, 5))
    }
    if (cut) response.destroy()
    else response.end()
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
})
afterAll(() => {
  server.closeAllConnections()
  server.close()
})

const piece = (content: string) => `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`
const USAGE =
  'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
const once = (timeoutMs = 5000): Promise<Sample> => {
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const target: Target = { url, key: 'k', model: 'm', osl: 3, timeoutMs }
  return ask(target, [{ role: 'user', content: 'hi' }], performance.now() - 50, new AbortController().signal)
}

test('the client: pieces, usage, time from when the request was due', async () => {
  answer = () => ({ frames: [piece(''), piece('a'), piece('b'), piece('c'), USAGE, 'data: [DONE]\n\n'] })
  const seen = await once()
  expect(seen).toMatchObject({ error: undefined, promptTokens: 9, cachedTokens: 4, outputTokens: 3 })
  expect(seen.gaps).toHaveLength(2)
  expect(seen.lag).toBeGreaterThanOrEqual(50)
  expect(seen.ttft).toBeGreaterThan(seen.lag)
  expect(seen.e2e).toBeGreaterThan(seen.ttft ?? Number.POSITIVE_INFINITY)
  expect(JSON.parse(asked)).toMatchObject({ model: 'm', max_tokens: 3, ignore_eos: true, stream: true })
})

const failures: [string, ReturnType<typeof answer>, string][] = [
  ['a refusal', { status: 503, frames: ['{"error":{"code":"no_node"}}'] }, '503 no_node'],
  ['a page that is no JSON', { status: 502, frames: ['<html>'] }, '502'],
  [
    'an error frame',
    { frames: [piece('a'), 'data: {"error":{"code":"stream_interrupted"}}\n\n'] },
    'stream_interrupted',
  ],
  ['an end without [DONE]', { frames: [piece('a')] }, 'no end'],
  ['a connection cut', { frames: [piece('a')], cut: true }, 'ECONNRESET'],
]
test.each(failures)('the client: %s is an error', async (_, how, error) => {
  answer = () => how
  expect((await once()).error).toBe(error)
})

test('the client: what takes too long is cut off in the stream too', async () => {
  answer = () => ({ frames: new Array(200).fill(piece('a')) })
  expect((await once(60)).error).toBe('timeout')
})

test('options: defaults, a sweep, and what is wrong by name', () => {
  expect(readOptions([])).toMatchObject({ rates: [4], osl: 32, workload: { workload: 'shared', prefixShare: 0.8 } })
  expect(readOptions(['--sweep', '1,2.5']).rates).toEqual([1, 2.5])
  expect(() => readOptions(['--rate', '0'])).toThrow(/--rate: 0 is no number from/)
  expect(() => readOptions(['--sweep', '1,x'])).toThrow(/--sweep: x/)
  expect(() => readOptions(['--prefix-share', '1'])).toThrow(/--prefix-share/)
  expect(() => readOptions(['--workload', 'odd'])).toThrow(/--workload: odd/)
  expect(() => readOptions(['--url', 'http://x', '--compare-cache'])).toThrow(/--compare-cache/)
})
