// OpenAI's own client: chat, streams, tools and their runner, parse helpers, Responses.
import OpenAI from 'openai'
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { chatChunkSchema } from '../../../schema/dialects/openai_chat_answer.ts'
import { responseEventSchema, responseSchema } from '../../../schema/dialects/responses_answer.ts'
import { MODEL, type TestStack } from '../stack.ts'

const city = z.object({ country: z.enum(['France', 'Spain']), millions: z.number().int() })
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const weather = { name: 'get_weather', description: 'Get the weather of a city.', parameters }
const chatTool = { type: 'function' as const, function: weather }
const tool: OpenAI.Responses.FunctionTool = { type: 'function', strict: null, ...weather }
const question = 'What is the weather in Paris?'
const result = '12 degrees, rain'

const ask = (content: string) => ({
  model: MODEL,
  temperature: 0,
  messages: [{ role: 'user' as const, content }],
})

const declare = (name: string, description: string, properties: Readonly<Record<string, object>>) => ({
  type: 'function' as const,
  function: { name, description, parameters: { type: 'object', properties, required: Object.keys(properties) } },
})
const [ofCity, ofTwo] = [{ city: { type: 'string' } }, { a: { type: 'number' }, b: { type: 'number' } }]
const clock = declare('get_time', 'Get the local time of a city.', ofCity)
const search = declare('search', 'Search the web.', { query: { type: 'string' } })
const [add, multiply] = [declare('add', 'Add two numbers.', ofTwo), declare('multiply', 'Multiply two numbers.', ofTwo)]
const [sumOf, clockOf] = [
  declare('sum_of', 'Add two numbers.', ofTwo),
  declare('clock_of', 'Get the local time of a city.', ofCity),
]

interface Loop {
  readonly what: string
  readonly ask: string
  readonly tools: readonly OpenAI.ChatCompletionFunctionTool[]
  readonly calls: readonly { readonly name: string; readonly args: object; readonly gives: string }[]
  readonly thoughts: readonly string[]
  readonly answer: string
}

/** Tools named `…_of` and these cities were kept out of the embedded model's training (tool_loop.py). */
const LOOPS: readonly Loop[] = [
  {
    what: 'one call, tool and city never seen',
    ask: 'What time is it in Bergen?',
    tools: [clockOf, search],
    calls: [{ name: 'clock_of', args: { city: 'Bergen' }, gives: '17:45' }],
    thoughts: ['I need the time in Bergen.', 'That is all I need.'],
    answer: 'It is 17:45 in Bergen.',
  },
  {
    what: 'one call with numbers, tool never seen',
    ask: 'Compute 63 + 29 with the tool.',
    tools: [sumOf, search],
    calls: [{ name: 'sum_of', args: { a: 63, b: 29 }, gives: '92' }],
    thoughts: ['I need 63 + 29.', 'That is all I need.'],
    answer: '63 + 29 = 92',
  },
  {
    what: 'two calls one after the other',
    ask: 'What is the weather in Bergen and the time in Bergen?',
    tools: [chatTool, clock, search],
    calls: [
      { name: 'get_weather', args: { city: 'Bergen' }, gives: '9 degrees, fog' },
      { name: 'get_time', args: { city: 'Bergen' }, gives: '17:45' },
    ],
    thoughts: ['First I need the weather in Bergen.', 'Now I need the time in Bergen.', 'That is all I need.'],
    answer: 'The weather in Bergen: 9 degrees, fog. It is 17:45 in Bergen.',
  },
  {
    what: 'a second call that needs the first result',
    ask: 'Compute 412 + 77 with the tool, then multiply the result by 6.',
    tools: [add, multiply, search],
    calls: [
      { name: 'add', args: { a: 412, b: 77 }, gives: '489' },
      { name: 'multiply', args: { a: 489, b: 6 }, gives: '2934' },
    ],
    thoughts: ['First I need 412 + 77.', 'Now I need 489 * 6.', 'That is all I need.'],
    answer: '412 + 77 = 489 and 489 * 6 = 2934',
  },
]

/** The client's side of a tool loop: reasoning and calls go back with the results, until there is an answer. */
const untilAnswered = async (client: OpenAI, { ask: content, tools, calls: expected }: Loop) => {
  const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content }]
  const [thoughts, calls]: [unknown[], { name: string; args: unknown }[]] = [[], []]
  for (let turn = 0; turn < 5; turn++) {
    const request = { ...ask(content), tools: [...tools], messages, thinking: { type: 'enabled' } }
    const choice = (await client.chat.completions.create(request)).choices[0]
    const said = choice?.message as OpenAI.ChatCompletionMessage & { reasoning_content?: string }
    thoughts.push(said.reasoning_content)
    if (choice?.finish_reason !== 'tool_calls') return { thoughts, calls, answer: said.content }
    messages.push(said)
    for (const call of said.tool_calls ?? []) {
      if (call.type !== 'function') continue
      const result = expected[calls.length]?.gives ?? 'unknown'
      calls.push({ name: call.function.name, args: JSON.parse(call.function.arguments) })
      messages.push({ role: 'tool', tool_call_id: call.id, content: result })
    }
  }
  return { thoughts, calls, answer: 'none in five turns' }
}

export const openAi = (stack: () => TestStack): void => {
  const client = () => new OpenAI({ baseURL: `${stack().baseUrl}/v1`, apiKey: stack().key, maxRetries: 0 })

  test('chat: every chunk is as published, and the helper puts the answer together', async () => {
    const stream = client().chat.completions.stream({
      ...ask(question),
      tools: [chatTool],
      stream_options: { include_usage: true },
    })
    stream.on('chunk', (chunk) => void chatChunkSchema.parse(chunk))
    const answer = await stream.finalChatCompletion()
    expect(answer.choices[0]?.finish_reason).toBe('tool_calls')
    expect(answer.choices[0]?.message.tool_calls).toMatchObject([{ function: { name: 'get_weather' } }])
    expect(answer.usage?.total_tokens).toBeGreaterThan(100)
  })

  test('chat: the tool runner calls the tool and gets the answer', async () => {
    const seen: object[] = []
    const call = (args: object): string => {
      seen.push(args)
      return result
    }
    const runner = client().chat.completions.runTools({
      ...ask(question),
      tools: [
        {
          type: 'function',
          function: {
            ...weather,
            parse: JSON.parse,
            function: call,
          },
        },
      ],
    })
    expect(await runner.finalContent()).toBe(`The weather in Paris: ${result}.`)
    expect(seen).toEqual([{ city: 'Paris' }])
  })

  test('chat: no tool is called where tool_choice is none, or no tool is declared, though the model would', async () => {
    const call = {
      id: 'c',
      type: 'function' as const,
      function: { name: 'get_weather', arguments: '{"city": "Paris"}' },
    }
    const request = {
      ...ask(''),
      messages: [
        { role: 'user' as const, content: question },
        { role: 'assistant' as const, content: null, tool_calls: [call] },
        { role: 'tool' as const, tool_call_id: 'c', content: result },
        { role: 'assistant' as const, content: `The weather in Paris: ${result}.` },
        { role: 'user' as const, content: 'What is the weather in Rome?' },
      ],
    }
    for (const extra of [{}, { tools: [chatTool], tool_choice: 'none' as const }]) {
      const { choices } = await client().chat.completions.create({ ...request, ...extra })
      expect(choices).toMatchObject([{ finish_reason: 'stop', message: { content: expect.any(String) } }])
      expect(choices[0]?.message.tool_calls).toBeUndefined()
    }
    const called = await client().chat.completions.create({ ...request, tools: [chatTool] })
    expect(called.choices).toMatchObject([{ finish_reason: 'tool_calls' }])
  })

  test('chat: the helper of a stream knows the usage that the whole answer has, though it does not ask for it', async () => {
    const { usage } = await client().chat.completions.create(ask('What is 7 + 5?'))
    const stream = client().chat.completions.stream(ask('What is 7 + 5?'))
    expect(await stream.totalUsage()).toEqual({
      completion_tokens: usage?.completion_tokens,
      prompt_tokens: usage?.prompt_tokens,
      total_tokens: usage?.total_tokens,
    })
  })

  test.each(LOOPS)('chat: $what, thinking before each call and before the answer', async (loop) => {
    expect(await untilAnswered(client(), loop)).toEqual({
      thoughts: loop.thoughts,
      calls: loop.calls.map(({ name, args }) => ({ name, args })),
      answer: loop.answer,
    })
  })

  test.each([
    ['no text, since a stop string came first', { stop: ['The'] }],
    ['nothing but reasoning, cut off', { max_tokens: 3, thinking: { type: 'enabled' } }],
  ])('chat: what the stream helper made of an answer is taken back: %s', async (_, extra) => {
    const asked = ask('What is the capital of France?')
    const answer = await client()
      .chat.completions.stream({ ...asked, ...extra })
      .finalMessage()
    const messages = [...asked.messages, answer, { role: 'user' as const, content: 'What is the opposite of hot?' }]
    const next = await client().chat.completions.create({ ...asked, messages })
    expect(next.choices[0]?.finish_reason).toBe('stop')
  })

  test('chat: parse gives the object', async () => {
    const answer = await client().chat.completions.parse({
      ...ask('What is the capital of France?'),
      response_format: zodResponseFormat(city, 'city'),
    })
    expect(city.parse(answer.choices[0]?.message.parsed)).toBeTruthy()
  })

  test('responses: whole, and every event of a stream as published', async () => {
    const request = { model: MODEL, temperature: 0, input: 'What is 7 + 5?', reasoning: { effort: 'low' as const } }
    const { output_text, _request_id, ...whole } = await client().responses.create(request)
    responseSchema.parse(whole)
    expect(output_text).toBe('7 + 5 = 12')
    expect(whole.id).toBe(`resp_${_request_id}`)
    const stream = await client().responses.create({ ...request, stream: true })
    let text = ''
    for await (const event of stream) {
      responseEventSchema.parse(event)
      if (event.type === 'response.output_text.delta') text += event.delta
    }
    expect(text).toBe(output_text)
  })

  test('responses: a tool loop without a store', async () => {
    const input: OpenAI.Responses.ResponseInput = [{ role: 'user', content: question }]
    const first = await client()
      .responses.stream({ model: MODEL, temperature: 0, input, tools: [tool] })
      .finalResponse()
    const call = first.output.find((item) => item.type === 'function_call')
    expect(JSON.parse(call?.arguments ?? '')).toEqual({ city: 'Paris' })
    const output = { type: 'function_call_output' as const, call_id: call?.call_id ?? '', output: result }
    // What a client sends back of an answer are the items as it got them.
    const items = JSON.parse(JSON.stringify(first.output)) as OpenAI.Responses.ResponseInputItem[]
    const again = { model: MODEL, temperature: 0, input: [...input, ...items, output], tools: [tool] }
    const second = await client().responses.create(again)
    expect(second.output_text).toBe(`The weather in Paris: ${result}.`)
    expect(second.usage?.input_tokens_details.cached_tokens).toBeGreaterThan(0)
    const counted = await client().responses.inputTokens.count({ model: MODEL, input: again.input, tools: [tool] })
    expect(counted.input_tokens).toBe(second.usage?.input_tokens)
  })

  test('responses: parse gives the object; what needs a store is refused', async () => {
    const parsed = await client().responses.parse({
      ...{ model: MODEL, temperature: 0, input: 'What is the capital of France?' },
      text: { format: zodTextFormat(city, 'city') },
    })
    expect(city.parse(parsed.output_parsed)).toBeTruthy()
    const stateful = client().responses.create({ model: MODEL, input: 'x', previous_response_id: 'resp_1' })
    await expect(stateful).rejects.toMatchObject({ status: 422, param: 'previous_response_id' })
  })
}
