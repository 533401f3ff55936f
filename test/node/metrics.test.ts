// /metrics under vLLM's names, against the receipts of the same runs: a node over its own engine and the embedded model, with
// the prefix cache and without it.
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openNativeEngine } from '../../gpu-node/engine/native.ts'
import { withoutReuse } from '../../gpu-node/engine/without_reuse.ts'
import { type RunningNode, startNode } from '../../gpu-node/node.ts'
import type { Receipt } from '../../schema/wire.ts'
import { post, runRequest, startEdge, type TestEdge, tempDir, testSettings, until } from './fixture.ts'

let edge: TestEdge
let node: RunningNode
let dir: ReturnType<typeof tempDir>

const boot = async (reuse: boolean): Promise<void> => {
  node = await startNode(
    testSettings(edge.url, dir.path),
    async ({ SPARROW_MODEL_DIR: modelDir }, { tokenBytes }) => {
      const engine = await openNativeEngine({ modelDir, tokenBytes })
      return reuse ? engine : withoutReuse(engine)
    },
    () => {},
  )
  await until('readiness', () => edge.heartbeats.length > 0)
}
beforeEach(async () => {
  edge = await startEdge()
  dir = tempDir()
})
afterEach(async () => {
  await node.drain()
  await edge.close()
  dir.remove()
})

const ask = (text: string) => `<｜begin▁of▁sentence｜><｜User｜>${text}<｜Assistant｜></think>`
const LONG = ask(`${'The city lies on a river and has a port. '.repeat(50)}What is the capital of France?`)

const finished = async (...asked: Parameters<typeof runRequest>): Promise<Receipt> => {
  const request = runRequest(...asked)
  await (await post(node, request)).text()
  await until('the receipt', () => edge.receipts.some(({ requestId }) => requestId === request.run.requestId))
  return edge.receipts.find(({ requestId }) => requestId === request.run.requestId) as Receipt
}

/** Values by name and labels, as Prometheus reads them. */
const scrape = async (): Promise<ReadonlyMap<string, number>> => {
  const text = await (await fetch(`${node.address}/metrics`)).text()
  const samples = [...text.matchAll(/^([\w:]+(?:\{[^}]*\})?) (\S+)$/gm)]
  return new Map(samples.map(([, name, value]) => [name as string, Number(value)]))
}
const LABEL = 'model_name="sparrow-mini"'
const NAMES = ['prefix_cache_queries', 'prefix_cache_hits', 'prompt_tokens', 'generation_tokens'] as const
const counts = (samples: ReadonlyMap<string, number>) =>
  NAMES.map((name) => samples.get(`vllm:${name}_total{${LABEL}}`) ?? Number.NaN)
const reason = (samples: ReadonlyMap<string, number>, of: string) =>
  samples.get(`vllm:request_success_total{${LABEL},finished_reason="${of}"}`)

const sums = (receipts: readonly Receipt[]) => {
  const sum = (of: 'hitTokens' | 'missTokens' | 'outputTokens') => receipts.reduce((all, one) => all + one[of], 0)
  const prompt = sum('hitTokens') + sum('missTokens')
  return [prompt, sum('hitTokens'), prompt, sum('outputTokens')]
}

test('tokens, hits, reasons and times are those of the receipts', async () => {
  await boot(true)
  expect(counts(await scrape())).toEqual([0, 0, 0, 0])
  const receipts: Receipt[] = []
  for (const run of [
    { prompt: LONG, maxTokens: 24 },
    { prompt: LONG, maxTokens: 24 },
    { prompt: LONG, maxTokens: 24, n: 3, temperature: 1 },
    { prompt: ask('Tell me a story.'), maxTokens: 5, ignoreEos: true },
    { prompt: ask('Tell me a story.'), maxTokens: 0, raw: true, dialect: 'completions' },
  ]) {
    receipts.push(await finished(run))
  }
  const leave = new AbortController()
  const cut = runRequest({ prompt: LONG, maxTokens: 3000, temperature: 2, ignoreEos: true })
  await (await post(node, cut, { signal: leave.signal })).body?.getReader().read()
  leave.abort()
  await until('the receipt', () => edge.receipts.length === receipts.length + 1)
  receipts.push(edge.receipts.at(-1) as Receipt)

  const samples = await scrape()
  expect(counts(samples)).toEqual(sums(receipts))
  const hits = samples.get(`vllm:prefix_cache_hits_total{${LABEL}}`) ?? 0
  expect(hits).toBe(3 * (receipts[1]?.hitTokens ?? 0))
  expect(hits).toBeGreaterThan(3 * 256)
  expect(reason(samples, 'abort')).toBe(1)
  expect(reason(samples, 'error')).toBe(0)
  expect((reason(samples, 'stop') ?? 0) + (reason(samples, 'length') ?? 0)).toBe(5)
  for (const name of ['num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc', 'num_preemptions_total'])
    expect(samples.get(`vllm:${name}{${LABEL}}`), name).toBe(0)
  for (const name of ['time_to_first_token', 'e2e_request_latency', 'request_queue_time', 'request_prefill_time'])
    expect(samples.get(`vllm:${name}_seconds_count{${LABEL}}`), name).toBe(6)
  const whole = samples.get(`vllm:e2e_request_latency_seconds_sum{${LABEL}}`) ?? 0
  const parts = ['queue', 'prefill', 'decode'].map(
    (name) => samples.get(`vllm:request_${name}_time_seconds_sum{${LABEL}}`) ?? Number.NaN,
  )
  expect(parts.reduce((sum, part) => sum + part, 0)).toBeLessThanOrEqual(whole)
  expect(samples.get(`vllm:inter_token_latency_seconds_count{${LABEL}}`)).toBeGreaterThan(5)
})

test('without the prefix cache nothing is found, and answers are the same', async () => {
  await boot(false)
  const long = { prompt: LONG, maxTokens: 24 }
  const keyed = { prefixKeys: ['a'.repeat(24), 'b'.repeat(24)] }
  const receipts = [await finished(long, keyed), await finished(long, keyed)]
  // The edge must not look for them here.
  expect(receipts.map(({ prefix }) => prefix)).toEqual([[], []])
  const samples = await scrape()
  expect(counts(samples)).toEqual(sums(receipts))
  expect(samples.get(`vllm:prefix_cache_hits_total{${LABEL}}`)).toBe(0)
  expect(samples.get(`vllm:prefix_cache_queries_total{${LABEL}}`)).toBe(2 * (receipts[0]?.missTokens ?? 0))
  expect(receipts[1]).toMatchObject({ hitTokens: 0, outputTokens: receipts[0]?.outputTokens })
})
