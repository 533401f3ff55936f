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

  // What the model then says is not looked at: it was not taught to think beside tools (MODEL_CARD.md).
  test('chat: with thinking on the tool is called, and its result and the reasoning go back', async () => {
    const thinking = { thinking: { type: 'enabled' } }
    const request = { ...ask(question), tools: [chatTool], ...thinking }
    const first = (await client().chat.completions.create(request)).choices[0]
    const call = first?.message.tool_calls?.[0]
    expect(first?.finish_reason).toBe('tool_calls')
    expect(call).toMatchObject({ function: { name: 'get_weather', arguments: '{"city": "Paris"}' } })
    const said = first?.message as OpenAI.ChatCompletionAssistantMessageParam & { reasoning_content: string }
    const tool = { role: 'tool' as const, tool_call_id: call?.id ?? '', content: result }
    const messages = [...request.messages, { ...said, reasoning_content: 'I ask the tool.' }, tool]
    const second = await client().chat.completions.create({ ...request, messages })
    expect(second.choices[0]?.finish_reason).toBe('stop')
    expect(second.usage?.prompt_tokens_details?.cached_tokens).toBeGreaterThan(0)
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
