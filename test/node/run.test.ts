// POST /run at a node over a scripted engine: signature, refusals, bytes of the stream, counts of the receipt, disconnects.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { RunningNode } from '../../gpu-node/node.ts'
import { RUN_BODY_BYTES_MAX } from '../../gpu-node/server.ts'
import { loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
import { prefixKeys } from '../../schema/prefix.ts'
import { HEAD_HEADERS, PATHS, type Receipt } from '../../schema/wire.ts'
import {
  chunksOf,
  contentOf,
  type PostOptions,
  post,
  postUnread,
  runRequest,
  startEdge,
  startTestNode,
  type TestEdge,
  tempDir,
  testSettings,
  until,
} from './fixture.ts'
import { type Script, type ScriptedEngine, scriptedEngine } from './scripted_engine.ts'

let edge: TestEdge
let node: RunningNode
let engine: ScriptedEngine
let tokenizer: Tokenizer
const dir = tempDir()
const EOS = 1
const THINK_END = 6

const idsOf = async (text: string): Promise<number[]> => Array.from((await tokenizer.encode(text)).ids)

beforeAll(async () => {
  edge = await startEdge()
  engine = scriptedEngine(() => ({ ids: [EOS] }))
  const settings = testSettings(edge.url, dir.path, {
    SPARROW_QUEUE_MAX: '2',
    SPARROW_QUEUE_SHARE: '1',
    SPARROW_STALL_SECONDS: '60',
  })
  tokenizer = await loadTokenizer(settings.SPARROW_MODEL_DIR)
  node = await startTestNode(settings, engine, edge)
})

afterAll(async () => {
  await node.drain()
  await edge.close()
  dir.remove()
})

const play = (script: Script): void => {
  engine.script = () => script
}

beforeEach(() => play({ ids: [EOS] }))

const receiptOf = async (requestId: string): Promise<Receipt> => {
  await until('the receipt', () => edge.receipts.some((receipt) => receipt.requestId === requestId))
  return edge.receipts.find((receipt) => receipt.requestId === requestId) as Receipt
}

const codeOf = async (response: Response): Promise<[number, string]> => {
  const body = (await response.json()) as { error: { code: string } }
  return [response.status, body.error.code]
}

test('a stream: head, deltas, usage, receipt', async () => {
  const answer = 'Hello, wörld! 🎉 done'
  play({ ids: [...(await idsOf(answer)), EOS], stepMs: 1 })
  const request = runRequest()
  const response = await post(node, request)
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toContain('text/event-stream')
  expect(response.headers.get(HEAD_HEADERS.nodeId)).toBe(node.nodeId)
  const promptTokens = (await idsOf(request.run.prompt)).length
  expect(response.headers.get(HEAD_HEADERS.promptTokens)).toBe(String(promptTokens))
  expect(response.headers.get(HEAD_HEADERS.cachedTokens)).toBe('0')
  const text = await response.text()
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
  expect(contentOf(text)).toBe(answer)
  expect(text).toContain('"finish_reason":"stop"')
  const output = (await idsOf(answer)).length + 1
  const usage = (chunksOf(text).at(-1) as unknown as { usage: Record<string, number> }).usage
  expect(usage).toMatchObject({ prompt_tokens: promptTokens, completion_tokens: output, prompt_cache_hit_tokens: 0 })
  const receipt = await receiptOf(request.run.requestId)
  expect(receipt).toMatchObject({ hitTokens: 0, missTokens: promptTokens, outputTokens: output, finish: 'stop' })
  expect(receipt).toMatchObject({ accountId: 'acc', keyId: 'key', attempt: 1, nodeId: node.nodeId, reasoningTokens: 0 })
  expect(receipt.openedAt).toBeLessThanOrEqual(receipt.firstTokenAt ?? 0)
})

test('tokens are counted for the edge alone, without a place in the queue', async () => {
  const text = '<｜User｜>hello there<｜Assistant｜></think>'
  const body = { model: 'sparrow-mini', text, withIds: true }
  const ids = await idsOf(text)
  const counted = await post(node, body, { path: PATHS.tokenize })
  expect(await counted.json()).toEqual({ count: ids.length, contextTokens: engine.info.contextLength, ids })
  const bare = await post(node, { ...body, withIds: false }, { path: PATHS.tokenize })
  expect(await bare.json()).not.toHaveProperty('ids')
  expect(await codeOf(await post(node, { ...body, model: 'x' }, { path: PATHS.tokenize }))).toEqual([503, 'no_node'])
  const forged = { path: PATHS.tokenize, secret: 'x'.repeat(43) }
  expect(await codeOf(await post(node, body, forged))).toEqual([401, 'invalid_signature'])
  expect(await codeOf(await post(node, { text }, { path: PATHS.tokenize }))).toEqual([400, 'invalid_request'])
})

test('an attempt that was abandoned before it came never begins; one that had begun brings its receipt', async () => {
  const abandon = async (attempt: object): Promise<unknown> => {
    const answer = await post(node, attempt, { path: PATHS.abandon })
    return answer.ok ? answer.json() : codeOf(answer)
  }
  const early = runRequest()
  const attempt = (request: typeof early) => ({ requestId: request.run.requestId, attempt: request.attempt })
  expect(await abandon(attempt(early))).toEqual({ willBill: false })
  expect(await codeOf(await post(node, early))).toEqual([409, 'conflict'])
  expect(await abandon(attempt(early))).toEqual({ willBill: false })

  play({ ids: await idsOf('one two three four five six'), stepMs: 5 })
  const late = runRequest()
  const leave = new AbortController()
  await post(node, late, { signal: leave.signal })
  leave.abort()
  expect(await abandon(attempt(late))).toEqual({ willBill: true })
  await receiptOf(late.run.requestId)

  const refused = runRequest({ prompt: 'a '.repeat(3 * engine.info.contextLength) })
  expect((await post(node, refused)).status).toBe(413)
  expect(await abandon(attempt(refused))).toEqual({ willBill: false })
  expect(await abandon({ requestId: 'x' })).toEqual([400, 'invalid_request'])
})

test('a whole answer has length as its reason at max_tokens', async () => {
  play({ ids: await idsOf('one two three four five six') })
  const request = runRequest({ stream: false, includeUsage: false, maxTokens: 2 })
  const response = await post(node, request)
  expect(response.headers.get('content-type')).toBe('application/json')
  const body = (await response.json()) as {
    choices: { finish_reason: string; message: { content: string } }[]
    usage: { completion_tokens: number }
  }
  expect(body.choices[0]?.finish_reason).toBe('length')
  expect('one two three four five six'.startsWith(body.choices[0]?.message.content ?? '-')).toBe(true)
  expect(body.usage.completion_tokens).toBe(2)
  expect((await receiptOf(request.run.requestId)).finish).toBe('length')
})

test('a character split over tokens never shows in halves', async () => {
  const ids = await idsOf('🎉é漢')
  expect(ids.length).toBeGreaterThan(3)
  play({ ids: [...ids, EOS] })
  const text = await (await post(node, runRequest())).text()
  expect(contentOf(text)).toBe('🎉é漢')
  expect(text).not.toContain('\ufffd')
})

test('reasoning tokens are those inside the think tags', async () => {
  const thought = await idsOf('so it is')
  play({ ids: [...thought, THINK_END, ...(await idsOf('yes')), EOS] })
  const request = runRequest({ thinking: true })
  const text = await (await post(node, request)).text()
  expect(text).toContain('"reasoning_content":"s')
  expect(contentOf(text)).toBe('yes')
  expect((await receiptOf(request.run.requestId)).reasoningTokens).toBe(thought.length)
})

test('tool calls change the finish reason', async () => {
  const call = [
    '<｜DSML｜function_calls>\n<｜DSML｜invoke name="add">\n',
    '<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
  ].join('')
  play({ ids: [...(await idsOf(call)), EOS] })
  const request = runRequest({ stream: false, includeUsage: false })
  const body = (await (await post(node, request)).json()) as {
    choices: { finish_reason: string; message: { tool_calls: { function: { name: string; arguments: string } }[] } }[]
  }
  expect(body.choices[0]?.finish_reason).toBe('tool_calls')
  expect(body.choices[0]?.message.tool_calls[0]?.function).toEqual({ name: 'add', arguments: '{"a": 1}' })
  expect((await receiptOf(request.run.requestId)).finish).toBe('tool_calls')
})

test('a second identical prompt is cached, and the receipt names the resident blocks', async () => {
  const prompt = `<｜begin▁of▁sentence｜><｜User｜>${'the cat sat on the mat. '.repeat(40)}<｜Assistant｜></think>`
  const scope = { accountId: 'acc', model: 'sparrow-mini', chatFormat: 'deepseek_v32' }
  const keys = prefixKeys('secret', scope, prompt)
  const run = async () => {
    const request = runRequest({ prompt }, { prefixKeys: keys })
    await (await post(node, request)).text()
    return receiptOf(request.run.requestId)
  }
  const [first, second] = [await run(), await run()]
  const promptTokens = (await idsOf(prompt)).length
  expect(first.hitTokens).toBe(0)
  expect(second.hitTokens).toBe(Math.floor((promptTokens - 1) / 64) * 64)
  expect(second.hitTokens + second.missTokens).toBe(promptTokens)
  expect(first.prefix.length).toBeGreaterThan(1)
  expect(first.prefix.map(([key]) => key)).toEqual(keys.slice(0, first.prefix.length))
  for (const [, tokens] of first.prefix) expect(tokens).toBeLessThanOrEqual(Math.floor(promptTokens / 64) * 64)
  expect(second.prefix).toEqual(first.prefix)
})

const wrong: [string, PostOptions][] = [
  ['another secret', { secret: 'x'.repeat(43) }],
  ['another node', { audience: 'node-other' }],
  ['another issuer', { issuer: 'mallory' }],
  ['a swapped body', { swapped: JSON.stringify(runRequest({ maxTokens: 1 })) }],
]
test.each(wrong)('refuses the signature of %s', async (_, options) => {
  const before = engine.submitted.length
  expect(await codeOf(await post(node, runRequest(), options))).toEqual([401, 'invalid_signature'])
  expect(engine.submitted.length).toBe(before)
})

test('refuses an expired or missing signature', async () => {
  const body = JSON.stringify(runRequest())
  const bare = await fetch(`${node.address}/run`, { method: 'POST', body })
  expect(await codeOf(bare)).toEqual([401, 'invalid_signature'])
  const realNow = Date.now
  Date.now = () => realNow() - 10 * 60_000
  const RealDate = Date
  // jose reads `new Date()`.
  globalThis.Date = class extends RealDate {
    constructor() {
      super(realNow() - 10 * 60_000)
    }
  } as DateConstructor
  let call: Promise<Response>
  try {
    const { signCall } = await import('../../schema/signature.ts')
    const bytes = new TextEncoder().encode(body) as Uint8Array<ArrayBuffer>
    const old = await signCall(new TextEncoder().encode('d'.repeat(43)), 'HS256', 'edge', node.nodeId, bytes)
    call = Promise.resolve(new Response(old))
  } finally {
    globalThis.Date = RealDate
    Date.now = realNow
  }
  const authorization = await (await call).text()
  const late = await fetch(`${node.address}/run`, { method: 'POST', headers: { authorization }, body })
  expect(await codeOf(late)).toEqual([401, 'invalid_signature'])
})

test('takes an attempt once', async () => {
  const request = runRequest()
  expect((await post(node, request)).status).toBe(200)
  expect(await codeOf(await post(node, request))).toEqual([409, 'conflict'])
  expect((await post(node, { ...request, attempt: 2 })).status).toBe(200)
})

test('refuses what it cannot read, and the wrong path and method', async () => {
  expect(await codeOf(await post(node, '{'))).toEqual([400, 'malformed_request'])
  expect(await codeOf(await post(node, { run: {} }))).toEqual([400, 'invalid_request'])
  expect(await codeOf(await post(node, runRequest({ prompt: '' })))).toEqual([400, 'invalid_request'])
  expect(await codeOf(await fetch(`${node.address}/run`))).toEqual([405, 'method_not_allowed'])
  expect(await codeOf(await fetch(`${node.address}/admin`))).toEqual([404, 'not_found'])
  expect(await codeOf(await post(node, 'x'.repeat(RUN_BODY_BYTES_MAX + 1)))).toEqual([413, 'request_too_large'])
})

test('what was meant for another kind of node is no fault of the client: another node may take it', async () => {
  for (const other of [{ dialect: 'nobody' }, { chatFormat: 'nobody' }, { model: 'other' }])
    expect(await codeOf(await post(node, runRequest(other)))).toEqual([503, 'no_node'])
})

test('refuses a prompt over the context before any work, with both numbers', async () => {
  const before = engine.submitted.length
  const long = runRequest({ prompt: 'word '.repeat(6000) })
  const response = await post(node, long)
  const { error } = (await response.json()) as { error: { code: string; message: string } }
  expect([response.status, error.code]).toEqual([413, 'context_length_exceeded'])
  expect(error.message).toMatch(
    /maximum context length is 4096 tokens.*prompt is too long: (at least )?\d{4,} tokens > 4095/,
  )
  const huge = await post(node, runRequest({ prompt: 'word '.repeat(100_000) }))
  expect(await codeOf(huge)).toEqual([413, 'context_length_exceeded'])
  expect(engine.submitted.length).toBe(before)
  await new Promise((done) => setTimeout(done, 100))
  expect(edge.deliveries.has(long.run.requestId)).toBe(false)
})

test('a disconnect cancels, and the receipt states what was sampled until then', async () => {
  const word = (await idsOf('word'))[0] ?? 0
  play({ ids: new Array(900).fill(word), stepMs: 5 })
  const request = runRequest()
  const abort = new AbortController()
  const response = await post(node, request, { signal: abort.signal })
  const reader = response.body?.getReader()
  await reader?.read()
  const cancels = engine.cancels
  abort.abort()
  await until('the cancel', () => engine.cancels > cancels)
  const receipt = await receiptOf(request.run.requestId)
  expect(receipt.finish).toBe('cancelled')
  expect(receipt.outputTokens).toBeGreaterThan(0)
  expect(receipt.outputTokens).toBeLessThan(200)
  expect(receipt.missTokens).toBeGreaterThan(0)
})

test('cancelled in the queue is zero, and a full queue refuses with Retry-After', async () => {
  play({ ids: [EOS], queued: true })
  const requests = [runRequest(), runRequest()]
  const aborts = requests.map(() => new AbortController())
  const before = engine.submitted.length
  const calls = requests.map((request, i) => post(node, request, { signal: (aborts[i] as AbortController).signal }))
  await until('two queued', () => engine.submitted.length === before + 2)
  const third = await post(node, runRequest())
  expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(0)
  expect(await codeOf(third)).toEqual([503, 'no_node'])
  for (const abort of aborts) abort.abort()
  await Promise.allSettled(calls)
  for (const { run } of requests) {
    const { hitTokens, missTokens, outputTokens, finish } = await receiptOf(run.requestId)
    expect({ hitTokens, missTokens, outputTokens, finish }).toEqual({
      ...{ hitTokens: 0, missTokens: 0, outputTokens: 0, finish: 'cancelled' },
    })
  }
  play({ ids: [EOS] })
  expect((await post(node, runRequest())).status).toBe(200)
})

test('an engine error costs nothing: a status before the head, an error frame behind it', async () => {
  play({ ids: await idsOf('half an ans'), fails: true })
  const stream = runRequest()
  const text = await (await post(node, stream)).text()
  expect(text).toContain('"code":"internal_error"')
  expect(text).not.toContain('[DONE]')
  expect(await receiptOf(stream.run.requestId)).toMatchObject({ finish: 'error', missTokens: 0, outputTokens: 0 })
  const whole = runRequest({ stream: false, includeUsage: false })
  expect(await codeOf(await post(node, whole))).toEqual([500, 'internal_error'])
  expect(await receiptOf(whole.run.requestId)).toMatchObject({ finish: 'error', missTokens: 0, outputTokens: 0 })
})

test('a slow reader holds up nobody and grows nothing', async () => {
  const word = (await idsOf(' word'))[0] ?? 0
  play({ ids: new Array(60_000).fill(word) })
  const request = runRequest({ maxTokens: 60_000 })
  const response = await postUnread(node, request)
  // The receipt comes though nobody reads: what is billed does not wait for the reader.
  const receipt = await receiptOf(request.run.requestId)
  expect(receipt.outputTokens).toBe(60_000)
  const backlog = /^sparrow_stream_backlog_bytes (\d+)/m.exec(await (await fetch(`${node.address}/metrics`)).text())
  expect(Number(backlog?.[1])).toBeGreaterThan(0)
  expect(Number(backlog?.[1])).toBeLessThan(512 * 1024)
  let text = ''
  for await (const piece of response.setEncoding('utf8')) text += piece
  const one = Buffer.from(tokenizer.textBytes[word] ?? []).toString()
  expect(contentOf(text)).toBe(one.repeat(60_000))
  expect(text.endsWith('[DONE]\n\n')).toBe(true)
})

test('/metrics is Prometheus text with the counts of the receipts', async () => {
  await fetch(`${node.address}/metrics`)
  const text = await (await fetch(`${node.address}/metrics`)).text()
  for (const line of text.split('\n').filter((line) => line !== '')) {
    expect(line).toMatch(/^(# (HELP|TYPE) (sparrow_|vllm:)\w+ .+|(sparrow_|vllm:)\w+(\{[^}]*\})? [\d.e+-]+)$/)
  }
  const value = (name: string) => Number(new RegExp(`^${name.replace(/[{}]/g, '\\$&')} (\\S+)$`, 'm').exec(text)?.[1])
  const sum = (pick: (r: Receipt) => number) => edge.receipts.reduce((total, receipt) => total + pick(receipt), 0)
  expect(value('sparrow_tokens_total{kind="output"}')).toBe(sum((r) => r.outputTokens))
  expect(value('sparrow_tokens_total{kind="hit"}')).toBe(sum((r) => r.hitTokens))
  expect(value('sparrow_tokens_total{kind="miss"}')).toBe(sum((r) => r.missTokens))
  expect(value('sparrow_receipts_total{outcome="acknowledged"}')).toBe(edge.receipts.length)
  expect(value('sparrow_waiting')).toBe(0)
  expect(value('sparrow_running')).toBe(0)
  expect(value('sparrow_spec_decode_num_draft_tokens_total')).toBe(10)
  expect(value('sparrow_spec_decode_num_accepted_tokens_total')).toBe(7)
  expect(value('sparrow_ttft_seconds_count')).toBeGreaterThan(5)
})

test('/healthz says ready and what runs', async () => {
  const response = await fetch(`${node.address}/healthz`)
  expect(response.status).toBe(200)
  expect(await response.json()).toMatchObject({
    ready: true,
    draining: false,
    model: 'sparrow-mini',
    nodeId: node.nodeId,
  })
})
