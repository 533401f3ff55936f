// Text completions, aliases, prefixes and thinking across tool calls, with the official client against what `npm start` boots.
import OpenAI from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { priceOf, settled } from './customer.ts'
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

test('several prompts: each answered as if it came alone, one bill for all of them', async () => {
  const question = (text: string) => `<｜User｜>${text}<｜Assistant｜></think>`
  const prompt = ['What is the capital of France?', 'What is the capital of Italy?', 'What is 7 + 5?'].map(question)
  const together = await client.completions.create({ ...base, prompt, n: 2 })
  const alone = []
  for (const one of prompt) alone.push(await client.completions.create({ ...base, prompt: one }))
  const texts = alone.map(({ choices }) => choices[0]?.text)
  expect(together.choices.map(({ index, text }) => [index, text])).toEqual(
    [0, 0, 1, 1, 2, 2].map((p, index) => [index, texts[p]]),
  )
  expect(texts[1]).toContain('Rome')
  const sum = alone.reduce((all, { usage }) => all + (usage?.prompt_tokens ?? 0), 0)
  expect(together.usage?.prompt_tokens).toBe(sum)
  const charge = await settled(stack, together.id)
  expect(charge.tokens).toMatchObject({ prompt: sum, output: together.usage?.completion_tokens })
  expect(charge.charge_nano).toBe(priceOf(charge))
})

test('echo with logprobs scores the prompt: none of it is cached, and a likely text beats an unlikely one', async () => {
  const text = (city: string) => `${PROMPT}The capital of France is ${city}.`
  const score = async (prompt: string | number[]) => {
    const answer = await client.completions.create({ ...base, prompt, echo: true, logprobs: 1, max_tokens: 1 })
    expect(answer.usage?.prompt_tokens_details?.cached_tokens).toBe(0)
    return answer.choices[0]
  }
  await client.completions.create({ ...base, prompt: text('Paris').repeat(3) })
  const again = await score(text('Paris').repeat(3))
  const { tokens, token_logprobs, text_offset } = again?.logprobs ?? {}
  expect(tokens?.join('')).toBe(again?.text)
  expect(token_logprobs?.[0]).toBeNull()
  for (const [i, offset] of (text_offset ?? []).entries())
    expect(again?.text.slice(offset).startsWith(tokens?.[i] ?? '?')).toBe(true)
  const sum = (values: readonly (number | null)[] = []): number =>
    values.reduce((all: number, one) => all + (one ?? 0), 0)
  const [paris, rome] = [await score(text('Paris')), await score(text('Rome'))]
  expect(sum(paris?.logprobs?.token_logprobs)).toBeGreaterThan(sum(rome?.logprobs?.token_logprobs) + 3)
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
    ['completions', { model: MODEL, prompt: ['a', [5]] }],
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
