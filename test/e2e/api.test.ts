// One request, all the way through, as a user sends it: the official client against what `npm start` boots.
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import OpenAI from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bootTestStack, eventually, type LedgerRow, MODEL, type TestStack, type UsageRow } from './stack.ts'

let stack: TestStack
let client: OpenAI

beforeAll(async () => {
  stack = await bootTestStack()
  client = new OpenAI({ baseURL: `${stack.baseUrl}/v1`, apiKey: stack.key, maxRetries: 0 })
})
afterAll(() => stack?.remove())

const usageOf = (requestId: string): Promise<UsageRow> =>
  eventually(async () => {
    const { data } = await stack.admin<{ data: UsageRow[] }>('GET', '/usage?account=demo')
    return data.find((row) => row.requestId === requestId)
  })

const ask = (content: string, extra: object = {}) =>
  client.chat.completions.create({ model: MODEL, messages: [{ role: 'user', content }], temperature: 0, ...extra })

test('a question gets a sensible answer, usage and a receipt that agrees', async () => {
  const answer = await ask('What is the capital of France?')
  expect(answer.choices[0]?.message.content).toContain('Paris')
  expect(answer.choices[0]?.finish_reason).toBe('stop')
  const { usage } = answer
  expect(usage).toMatchObject({
    prompt_tokens_details: { cached_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: 0 },
    prompt_cache_hit_tokens: 0,
    prompt_cache_miss_tokens: usage?.prompt_tokens,
  })
  expect(usage?.total_tokens).toBe((usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0))
  const row = await usageOf(answer.id)
  expect(row.missTokens).toBe(usage?.prompt_tokens)
  expect(row.outputTokens).toBe(usage?.completion_tokens)
  expect(row.chargedNano).toBe(row.missTokens * 280 + row.outputTokens * 420)
})

test('the cron that workerd does not fire is fired', async () => {
  const log = join(stack.stateDir, 'edge.log')
  await expect.poll(() => readFileSync(log, 'utf8'), { timeout: 30_000 }).toMatch(/^cron: ok$/m)
})

test('a stream carries the same text, then usage, then [DONE]', async () => {
  const whole = await ask('What is 12 + 30?')
  const stream = await client.chat.completions.create({
    model: MODEL,
    messages: [{ role: 'user', content: 'What is 12 + 30?' }],
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  })
  let text = ''
  let usage: OpenAI.CompletionUsage | null | undefined
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? ''
    usage = chunk.usage ?? usage
  }
  expect(text).toBe(whole.choices[0]?.message.content)
  expect(usage?.completion_tokens).toBe(whole.usage?.completion_tokens)
})

test('thinking is told apart from the answer', async () => {
  const answer = await ask('What is 7 + 5?', { thinking: { type: 'enabled' } })
  const message = answer.choices[0]?.message as unknown as { content: string; reasoning_content: string }
  expect(message.reasoning_content).toContain('7 + 5 = 12')
  expect(message.content).not.toContain('think')
  expect(answer.usage?.completion_tokens_details?.reasoning_tokens).toBeGreaterThan(5)
})

test('same seed, same text', async () => {
  const twice = await Promise.all([1, 2].map(() => ask('Tell me a joke.', { temperature: 1, seed: 7 })))
  expect(twice[0]?.choices[0]?.message.content).toBe(twice[1]?.choices[0]?.message.content)
})

test('the second identical long prompt is mostly cached, cheaper and answers sooner', async () => {
  const passage = Array.from(
    { length: 90 },
    (_, i) => `Fact ${i}: the house number ${i * 7} stands by the river.`,
  ).join(' ')
  const timed = async () => {
    const start = performance.now()
    const answer = await ask(`${passage}\n\nWhat is the capital of France?`, { max_tokens: 1 })
    return { answer, ms: performance.now() - start }
  }
  const first = await timed()
  const second = await timed()
  const cached = second.answer.usage?.prompt_tokens_details?.cached_tokens ?? 0
  expect(first.answer.usage?.prompt_tokens).toBeGreaterThan(600)
  expect(first.answer.usage?.prompt_tokens_details?.cached_tokens).toBe(0)
  expect(cached).toBeGreaterThan(500)
  expect(cached % 64).toBe(0)
  const [a, b] = [await usageOf(first.answer.id), await usageOf(second.answer.id)]
  expect(b.hitTokens).toBe(cached)
  expect(b.chargedNano).toBe(b.hitTokens * 28 + b.missTokens * 280 + b.outputTokens * 420)
  expect(b.chargedNano).toBeLessThan(a.chargedNano / 2)
  expect(second.ms).toBeLessThan(first.ms)
})

test('a declared tool is called', async () => {
  const answer = await ask('What is the weather in Paris?', {
    tools: [
      {
        type: 'function',
        function: {
          name: 'get_weather',
          description: 'Get the weather of a city.',
          parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
        },
      },
    ],
  })
  const call = answer.choices[0]?.message.tool_calls?.[0]
  expect(answer.choices[0]?.finish_reason).toBe('tool_calls')
  expect(call?.type === 'function' && call.function.name).toBe('get_weather')
  expect(call?.type === 'function' && JSON.parse(call.function.arguments)).toEqual({ city: 'Paris' })
})

test('errors are OpenAI errors with the right status', async () => {
  const wrongKey = new OpenAI({ baseURL: `${stack.baseUrl}/v1`, apiKey: `${stack.key.slice(0, -1)}x`, maxRetries: 0 })
  await expect(wrongKey.models.list()).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' })
  await expect(ask('x', { model: 'no-such-model' })).rejects.toMatchObject({ status: 404, code: 'model_not_found' })
  await expect(ask('x', { temperature: 3 })).rejects.toMatchObject({ status: 422, param: 'temperature' })
  await expect(ask('word '.repeat(9000))).rejects.toMatchObject({ status: 413, code: 'context_length_exceeded' })
  const malformed = await fetch(`${stack.baseUrl}/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${stack.key}` },
    body: '{"model":',
  })
  expect(malformed.status).toBe(400)
  expect(await malformed.json()).toMatchObject({ error: { code: 'malformed_request', param: null } })
  expect(malformed.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
})

/** Statuses of what comes back on one connection, until it is closed or all requests are answered. */
const statusesOf = (requests: readonly string[]): Promise<readonly string[]> =>
  new Promise((done) => {
    const { hostname, port } = new URL(stack.baseUrl)
    const socket = connect(Number(port), hostname)
    let said = ''
    const statuses = () => said.match(/HTTP\/1\.1 \d+/g) ?? []
    socket.on('data', (part) => {
      said += part
      if (statuses().length === requests.length) socket.destroy()
    })
    socket.on('error', () => {}).once('close', () => done(statuses()))
    for (const request of requests) socket.write(request)
  })

test('a body that is refused unread is taken, so that its client gets the answer, and the next one on the connection', async () => {
  const post = (key: string, bytes: number): string =>
    [
      'POST /v1/chat/completions HTTP/1.1',
      ...['host: edge', `authorization: Bearer ${key}`, `content-length: ${bytes}`],
      `\r\n${'x'.repeat(bytes)}`,
    ].join('\r\n')
  const requests = [post(stack.key, 20e6), post('sk-wrong', 5e6), 'GET /healthz HTTP/1.1\r\nhost: edge\r\n\r\n']
  expect(await statusesOf(requests)).toEqual(['HTTP/1.1 413', 'HTTP/1.1 401', 'HTTP/1.1 200'])
})

test('json_schema: the answer is valid, whatever the model would say', async () => {
  const schema = {
    type: 'object',
    properties: {
      city: { type: 'string', maxLength: 20 },
      country: { enum: ['France', 'Spain'] },
      size: { type: 'integer' },
    },
    required: ['city', 'country', 'size'],
    additionalProperties: false,
  }
  const response_format = { type: 'json_schema', json_schema: { name: 'city', schema, strict: true } }
  const answer = await ask('What is the capital of France?', { response_format, temperature: 1 })
  const value = JSON.parse(answer.choices[0]?.message.content ?? '') as Record<string, unknown>
  expect(Object.keys(value)).toEqual(['city', 'country', 'size'])
  expect(['France', 'Spain']).toContain(value.country)
  expect(Number.isInteger(value.size)).toBe(true)
  const refused = { type: 'json_schema', json_schema: { name: 'x', schema: { type: 'object', not: {} } } }
  await expect(ask('x', { response_format: refused })).rejects.toMatchObject({
    ...{ status: 400, param: 'response_format.json_schema.schema.not' },
  })
})

test('tool_choice: the tool is called, and its arguments are valid', async () => {
  const parameters = {
    type: 'object',
    properties: { city: { type: 'string', maxLength: 20 }, days: { type: 'integer', minimum: 1, maximum: 7 } },
    required: ['city', 'days'],
    additionalProperties: false,
  }
  const tools = [{ type: 'function', function: { name: 'get_forecast', parameters, strict: true } }]
  const named = { type: 'function', function: { name: 'get_forecast' } }
  for (const tool_choice of ['required', named]) {
    const answer = await ask('Will it rain in Rome?', {
      tools,
      tool_choice,
      parallel_tool_calls: false,
      temperature: 1,
    })
    const [call] = answer.choices[0]?.message.tool_calls ?? []
    const { name, arguments: json } = (call as OpenAI.ChatCompletionMessageFunctionToolCall).function
    expect(name).toBe('get_forecast')
    expect(JSON.parse(json)).toMatchObject({ city: expect.any(String), days: expect.any(Number) })
    expect(answer.choices[0]?.finish_reason).toBe('tool_calls')
  }
})

test('without balance a request is refused with 402, and a top-up mends it', async () => {
  await stack.admin('POST', '/accounts', { name: 'poor' })
  const { key } = await stack.admin<{ key: string }>('POST', '/keys', { account: 'poor', name: 'k' })
  const poor = new OpenAI({ baseURL: `${stack.baseUrl}/v1`, apiKey: key, maxRetries: 0 })
  const call = () =>
    poor.chat.completions.create({ model: MODEL, messages: [{ role: 'user', content: 'Hello!' }], max_tokens: 20 })
  await expect(call()).rejects.toMatchObject({ status: 402 })
  await stack.admin('POST', '/topups', { account: 'poor', amountNano: 1_000_000 })
  expect((await call()).choices).toHaveLength(1)
})

test('a client that leaves stops the run; the receipt says what was computed', async () => {
  const stream = await client.chat.completions.create({
    model: MODEL,
    messages: [{ role: 'user', content: `Repeat: ${'red green blue '.repeat(40)}` }],
    temperature: 1,
    seed: 3,
    max_tokens: 3000,
    stream: true,
    stop: ['never-said'],
  })
  let id = ''
  for await (const chunk of stream) {
    id = chunk.id
    break
  }
  const row = await usageOf(id)
  expect(['cancelled', 'stop']).toContain(row.finish)
  expect(row.missTokens + row.hitTokens).toBeGreaterThan(0)
})

test('a key for some addresses: the one of the socket counts, unless a proxy has named the client', async () => {
  const keyFor = async (range: string): Promise<string> => {
    const limits = { ipRanges: [range] }
    return (await stack.admin<{ key: string }>('POST', '/keys', { account: 'demo', name: range, limits })).key
  }
  const [here, there] = [await keyFor('127.0.0.0/8'), await keyFor('203.0.113.0/24')]
  const statusOf = async (key: string, headers: Record<string, string> = {}): Promise<number> => {
    const url = `${stack.baseUrl}/user/balance`
    return (await fetch(url, { headers: { authorization: `Bearer ${key}`, ...headers } })).status
  }
  const proxied = { 'cf-connecting-ip': '203.0.113.9' }
  expect([await statusOf(here), await statusOf(there)]).toEqual([200, 403])
  expect([await statusOf(here, proxied), await statusOf(there, proxied)]).toEqual([403, 200])
})

test('the books sum to the cent', async () => {
  const balance = await eventually(async () => {
    const { data } = await stack.admin<{ data: LedgerRow[] }>('GET', '/ledger?account=demo')
    const sum = data.reduce((total, row) => total + row.amountNano, 0)
    const response = await fetch(`${stack.baseUrl}/user/balance`, { headers: { authorization: `Bearer ${stack.key}` } })
    const { balance_infos } = (await response.json()) as { balance_infos: { total_balance: string }[] }
    return balance_infos[0]?.total_balance === (sum / 1e9).toFixed(9) ? sum : undefined
  })
  expect(balance).toBeLessThan(10_000_000_000)
  expect(await stack.admin<{ ok: boolean }>('GET', '/audit')).toMatchObject({ ok: true, findings: [] })
})
