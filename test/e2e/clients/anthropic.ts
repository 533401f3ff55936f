// Anthropic's own SDK: messages, the stream helper, tools, thinking, counted tokens, errors.
import Anthropic from '@anthropic-ai/sdk'
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema'
import { expect, test } from 'vitest'
import { anthropicEventSchema, anthropicMessageSchema } from '../../../schema/dialects/anthropic_answer.ts'
import { MODEL, type TestStack } from '../stack.ts'

const weather: Anthropic.Tool = {
  name: 'get_weather',
  description: 'Get the weather of a city.',
  input_schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
}
const CITY = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } as const
const thinking = { type: 'enabled', budget_tokens: 1024 } as const

const ask = (
  content: Anthropic.MessageParam['content'],
  extra: Partial<Anthropic.MessageCreateParamsNonStreaming> = {},
) => ({
  model: MODEL,
  max_tokens: 200,
  temperature: 0,
  messages: [{ role: 'user' as const, content }],
  ...extra,
})

export const anthropicSdk = (stack: () => TestStack): void => {
  const client = (options: object = {}) =>
    new Anthropic({ baseURL: `${stack().baseUrl}/anthropic`, apiKey: stack().key, maxRetries: 0, ...options })

  test('a message, with either kind of key and on either path', async () => {
    const message = await client().messages.create(ask('What is the capital of France?'))
    const { _request_id, ...body } = message
    anthropicMessageSchema.parse(body)
    expect(message.content).toMatchObject([{ type: 'text', text: 'The capital of France is Paris.' }])
    expect(message).toMatchObject({ stop_reason: 'end_turn', id: `msg_${_request_id}` })
    const bearer = client({ baseURL: stack().baseUrl, apiKey: null, authToken: stack().key })
    const same = await bearer.messages.create(ask('What is the capital of France?'))
    expect(same.content).toEqual(message.content)
  })

  test('every event of a stream is as published, and the helper puts the message together', async () => {
    const stream = client().messages.stream(ask('What is 7 + 5?', { thinking }))
    stream.on('streamEvent', (event, snapshot) => {
      anthropicEventSchema.parse(
        event.type === 'message_start' ? { ...event, message: { ...event.message, content: [] } } : event,
      )
      expect(snapshot.usage.input_tokens).toBeGreaterThan(0)
    })
    const message = await stream.finalMessage()
    const whole = await client().messages.create(ask('What is 7 + 5?', { thinking }))
    expect(message.content).toEqual(whole.content)
    expect(message.content).toMatchObject([
      { type: 'thinking', thinking: expect.stringContaining('7 + 5 = 12') },
      { type: 'text', text: '7 + 5 = 12' },
    ])
    expect(message.usage.output_tokens).toBe(whole.usage.output_tokens)
  })

  test('the tool runner works: threads, which it asks for, are refused as it expects', async () => {
    const runner = client().beta.messages.toolRunner({
      ...{ model: MODEL, max_tokens: 200, temperature: 0 },
      messages: [{ role: 'user', content: 'What is the weather in Paris?' }],
      tools: [
        betaTool({
          name: 'get_weather',
          description: 'Get the weather of a city.',
          inputSchema: CITY,
          run: () => '18 degrees, sunny',
        }),
      ],
    })
    expect(JSON.stringify((await runner).content)).toMatch(/18|sunny/)
  })

  test('a tool loop ends in an answer made of the result; the prompt of its second half is cached', async () => {
    const question = { role: 'user' as const, content: 'What is the weather in Paris?' }
    const called = await client()
      .messages.stream({ ...ask(''), tools: [weather], messages: [question] })
      .finalMessage()
    const call = called.content.find((block) => block.type === 'tool_use')
    expect(called.stop_reason).toBe('tool_use')
    expect(call).toMatchObject({ name: 'get_weather', input: { city: 'Paris' } })
    const result = { type: 'tool_result' as const, tool_use_id: call?.id ?? '', content: '12 degrees, rain' }
    const answer = await client().messages.create({
      ...ask(''),
      tools: [weather],
      messages: [question, { role: 'assistant', content: called.content }, { role: 'user', content: [result] }],
    })
    expect(answer.content).toMatchObject([{ type: 'text', text: 'The weather in Paris: 12 degrees, rain.' }])
    expect(answer.usage.cache_read_input_tokens).toBeGreaterThan(0)
    expect(answer.usage.cache_creation_input_tokens).toBe(0)
  })

  test('with thinking on it calls the tool, takes the result, and its thinking comes and goes with the turn', async () => {
    const question = { role: 'user' as const, content: 'What is the weather in Geneva?' }
    const request = { ...ask(''), tools: [weather], thinking }
    const called = await client().messages.create({ ...request, messages: [question] })
    const call = called.content.find((block) => block.type === 'tool_use')
    expect(call).toMatchObject({ name: 'get_weather', input: { city: 'Geneva' } })
    const thought = called.content[0] as Anthropic.ThinkingBlock
    expect(thought).toMatchObject({ type: 'thinking', thinking: 'I need the weather in Geneva.' })
    const result = { type: 'tool_result' as const, tool_use_id: call?.id ?? '', content: '12 degrees, rain' }
    const messages: Anthropic.MessageParam[] = [
      question,
      { role: 'assistant', content: called.content },
      { role: 'user', content: [result] },
    ]
    const answer = await client()
      .messages.stream({ ...request, messages })
      .finalMessage()
    expect(answer.content).toMatchObject([
      { type: 'thinking', thinking: 'That is all I need.' },
      { type: 'text', text: 'The weather in Geneva: 12 degrees, rain.' },
    ])
    expect(answer.usage.cache_read_input_tokens).toBeGreaterThan(0)
    const count = async (more: Anthropic.MessageParam[], said: string) => {
      const turns = JSON.parse(
        JSON.stringify([...messages, ...more]).replace(thought.thinking, said),
      ) as typeof messages
      const { input_tokens } = await client().messages.countTokens({
        model: MODEL,
        tools: [weather],
        thinking,
        messages: turns,
      })
      return input_tokens
    }
    expect(await count([], 'I ask.')).toBeLessThan(await count([], thought.thinking))
    const next: Anthropic.MessageParam[] = [
      { role: 'assistant', content: 'Rain.' },
      { role: 'user', content: 'Thanks' },
    ]
    expect(await count(next, 'I ask.')).toBe(await count(next, thought.thinking))
  })

  test('a forced tool, a stop sequence, a limit', async () => {
    const forced = await client().messages.create(
      ask('Hello!', { tools: [{ ...weather, strict: true }], tool_choice: { type: 'any' } }),
    )
    expect(forced.content.at(-1)).toMatchObject({ type: 'tool_use', name: 'get_weather' })
    const stopped = await client().messages.create(ask('What is the capital of France?', { stop_sequences: ['Paris'] }))
    expect(stopped).toMatchObject({ stop_reason: 'stop_sequence', stop_sequence: 'Paris' })
    expect(stopped.content).toMatchObject([{ text: 'The capital of France is ' }])
    const cut = await client().messages.create(ask('What is the capital of France?', { max_tokens: 2 }))
    expect(cut.stop_reason).toBe('max_tokens')
  })

  test('counted tokens are those of the message', async () => {
    const { max_tokens: _, temperature: __, ...question } = ask('What is the weather in Paris?', { tools: [weather] })
    const counted = await client().messages.countTokens({ ...question, system: 'Be brief.' })
    const { usage } = await client().messages.create({ ...question, system: 'Be brief.', max_tokens: 1 })
    expect(counted.input_tokens).toBe(usage.input_tokens + (usage.cache_read_input_tokens ?? 0))
  })

  test('errors are Anthropic errors', async () => {
    const wrong = client({ apiKey: 'sk-wrong' }).messages.create(ask('x'))
    await expect(wrong).rejects.toBeInstanceOf(Anthropic.AuthenticationError)
    const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: '' } } as const
    await expect(client().messages.create(ask([image]))).rejects.toMatchObject({
      status: 400,
      requestID: expect.stringMatching(/^[0-9a-f-]{36}$/),
      error: { error: { type: 'invalid_request_error', message: expect.stringContaining('messages.0.content.0') } },
    })
    await expect(client().messages.create(ask('x', { model: 'none' }))).rejects.toBeInstanceOf(Anthropic.NotFoundError)
    const lost = await fetch(`${stack().baseUrl}/anthropic/v1/complete`, { method: 'POST' })
    expect([lost.status, await lost.json()]).toMatchObject([404, { type: 'error' }])
  })
}
