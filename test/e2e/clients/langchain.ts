// LangChain's DeepSeek model: an answer with usage, a stream, tools and their results, structured output.
import { ContextOverflowError } from '@langchain/core/errors'
import { HumanMessage, ToolMessage } from '@langchain/core/messages'
import { ChatDeepSeek } from '@langchain/deepseek'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { MODEL, type TestStack } from '../stack.ts'

const schema = {
  type: 'object',
  properties: { city: { type: 'string', maxLength: 20 } },
  required: ['city'],
  additionalProperties: false,
}
const weather = {
  type: 'function' as const,
  function: { name: 'get_weather', description: 'Get the weather of a city.', parameters: schema },
}

const usageSchema = z.object({
  total_tokens: z.number(),
  input_token_details: z.object({ cache_read: z.number().optional() }).optional(),
})
const usageOf = (message: { usage_metadata?: unknown }) => usageSchema.parse(message.usage_metadata)

export const langChain = (stack: () => TestStack): void => {
  const model = () =>
    new ChatDeepSeek({
      ...{ model: MODEL, apiKey: stack().key, temperature: 0, maxRetries: 0 },
      configuration: { baseURL: `${stack().baseUrl}/v1` },
    })

  test('a stream adds up to the answer, with usage', async () => {
    let text = ''
    let total = 0
    for await (const chunk of await model().stream('What is the capital of France?')) {
      text += chunk.text
      if (chunk.usage_metadata) total += usageOf(chunk).total_tokens
    }
    expect(text).toBe('The capital of France is Paris.')
    const answer = await model().invoke('What is the capital of France?')
    expect(answer.text).toBe(text)
    expect(usageOf(answer).total_tokens).toBe(total)
  })

  test('a tool loop; its second half reads the cache', async () => {
    const bound = model().bindTools([weather])
    const question = new HumanMessage('What is the weather in Paris?')
    const called = await bound.invoke([question])
    expect(called.tool_calls).toMatchObject([{ name: 'get_weather', args: { city: 'Paris' } }])
    const result = new ToolMessage({ content: '12 degrees, rain', tool_call_id: called.tool_calls?.[0]?.id ?? '' })
    const answer = await bound.invoke([question, called, result])
    expect(answer.text).toBe('The weather in Paris: 12 degrees, rain.')
    expect(usageOf(answer).input_token_details?.cache_read).toBeGreaterThan(0)
  })

  test('a prompt over the context is the error on which LangChain shortens a conversation', async () => {
    const failure: unknown = await model()
      .invoke('word '.repeat(9000))
      .catch((error: unknown) => error)
    expect(ContextOverflowError.isInstance(failure)).toBe(true)
  })

  test('structured output', async () => {
    const answer = await model().withStructuredOutput(schema, { name: 'get_weather' }).invoke('Weather in Oslo?')
    expect(Object.keys(answer)).toEqual(['city'])
  })
}
