// Text completions, aliases, prefixes and thinking across tool calls, with the official client against what `npm start` boots.
import OpenAI from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { settled } from './customer.ts'
import { bootTestStack, MODEL, type TestStack } from './stack.ts'

let stack: TestStack
let client: OpenAI
let beta: OpenAI

beforeAll(async () => {
  stack = await bootTestStack()
  client = new OpenAI({ baseURL: `${stack.baseUrl}/v1`, apiKey: stack.key, maxRetries: 0 })
  beta = new OpenAI({ baseURL: `${stack.baseUrl}/beta`, apiKey: stack.key, maxRetries: 0 })
})
afterAll(() => stack?.remove())

const PROMPT = '<｜User｜>What is the capital of France?<｜Assistant｜></think>'
const base = { model: MODEL, prompt: PROMPT, temperature: 0, max_tokens: 20 }

test('a completion, whole, streamed and on /beta, says what a chat says, and is billed like one', async () => {
  const whole = await client.completions.create(base)
  expect(whole).toMatchObject({ object: 'text_completion', model: MODEL })
  const text = whole.choices[0]?.text
  expect(text).toContain('Paris')
  const stream = await beta.completions.create({ ...base, stream: true, stream_options: { include_usage: true } })
  let streamed = ''
  let usage: OpenAI.CompletionUsage | null | undefined
  for await (const chunk of stream) {
    streamed += chunk.choices[0]?.text ?? ''
    usage = chunk.usage ?? usage
  }
  expect(streamed).toBe(text)
  expect(usage?.completion_tokens).toBe(whole.usage?.completion_tokens)
  const charge = await settled(stack, whole.id)
  expect(charge.tokens).toMatchObject({ prompt: whole.usage?.prompt_tokens, output: whole.usage?.completion_tokens })
})

test('echo, logprobs and a prompt of token ids', async () => {
  const echoed = await client.completions.create({ ...base, echo: true })
  expect(echoed.choices[0]?.text.startsWith(PROMPT)).toBe(true)
  const { choices } = await client.completions.create({ ...base, logprobs: 2 })
  const { text, logprobs } = choices[0] ?? {}
  expect(logprobs?.tokens?.join('')).toBe(text)
  for (const [i, offset] of (logprobs?.text_offset ?? []).entries())
    expect(text?.slice(offset).startsWith(logprobs?.tokens?.[i] ?? '?')).toBe(true)
  expect(Object.keys(logprobs?.top_logprobs?.[0] ?? {}).length).toBeGreaterThanOrEqual(2)
  const byIds = await client.completions.create({ ...base, prompt: [0, 300, 301] })
  expect(byIds.usage?.prompt_tokens).toBe(3)
})

test('a gap is refused by name: the embedded vocabulary has no tokens for it', async () => {
  await expect(client.completions.create({ ...base, prompt: 'a', suffix: 'b' })).rejects.toMatchObject({
    ...{ status: 422, param: 'suffix' },
  })
})

test('DeepSeek names stand for the served model, without and with thinking', async () => {
  const ask = (model: string) =>
    client.chat.completions.create({ model, temperature: 0, messages: [{ role: 'user', content: 'What is 7 + 5?' }] })
  const [chat, reasoner] = [await ask('deepseek-chat'), await ask('deepseek-reasoner')]
  expect([chat.model, reasoner.model]).toEqual(['deepseek-chat', 'deepseek-reasoner'])
  expect(chat.choices[0]?.message).not.toHaveProperty('reasoning_content')
  expect(reasoner.choices[0]?.message).toHaveProperty('reasoning_content', expect.stringContaining('7 + 5'))
  expect(chat.choices[0]?.message.content).toContain('12')
})

test('an answer goes on where the client began it', async () => {
  const prefix = { role: 'assistant', content: 'The capital of', prefix: true } as OpenAI.ChatCompletionMessageParam
  const messages = [{ role: 'user' as const, content: 'What is the capital of France?' }, prefix]
  const answer = await beta.chat.completions.create({ model: MODEL, temperature: 0, messages })
  expect(answer.choices[0]?.message.content).toBe(' France is Paris.')
})

test('bodies that are wrong in any way get a 4xx, and the node lives on', async () => {
  const headers = { authorization: `Bearer ${stack.key}` }
  const user = [{ role: 'user', content: 'x' }]
  for (const [path, body] of [
    ['completions', { model: MODEL, prompt: [2 ** 21] }],
    ['completions', { model: MODEL, prompt: ['a', 'b'] }],
    ['completions', { model: MODEL, prompt: 'word '.repeat(9000) }],
    ['chat/completions', { model: MODEL, messages: user, logit_bias: { 99999: 1 } }],
    ['chat/completions', { model: MODEL, messages: [{ role: 'wizard', content: 'x' }] }],
    ['chat/completions', { model: MODEL, messages: user, max_tokens: 1e30 }],
    ['chat/completions', { model: MODEL, messages: [{ role: 'user', content: 'x'.repeat(7 * 1024 * 1024) }] }],
  ] as const) {
    const response = await fetch(`${stack.baseUrl}/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
    expect([402, 413, 422], await response.text()).toContain(response.status)
  }
  expect((await client.completions.create(base)).choices[0]?.text).toContain('Paris')
})
