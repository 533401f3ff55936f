// Vercel's AI SDK with its DeepSeek and its OpenAI-compatible provider: text, streams, thinking, objects, a tool loop, cached tokens.
import { createDeepSeek } from '@ai-sdk/deepseek'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateObject, jsonSchema, type LanguageModel, stepCountIs, streamText, tool } from 'ai'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { MODEL, type TestStack } from '../stack.ts'

const weather = tool({
  description: 'Get the weather of a city.',
  inputSchema: jsonSchema<{ city: string }>({
    ...{ type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  }),
  execute: ({ city }) => (city === 'Paris' ? '12 degrees, rain' : 'unknown'),
})

// It warns that DeepSeek has no temperature while it thinks; here there is one.
Object.assign(globalThis, { AI_SDK_LOG_WARNINGS: false })

const long = Array.from({ length: 30 }, (_, i) => `House ${i} stands by the river.`).join(' ')

export const aiSdk = (stack: () => TestStack): void => {
  const deepseek = (): LanguageModel => createDeepSeek({ baseURL: `${stack().baseUrl}/v1`, apiKey: stack().key })(MODEL)
  const compatible = (): LanguageModel =>
    createOpenAICompatible({
      ...{ name: 'sparrow', baseURL: `${stack().baseUrl}/v1`, apiKey: stack().key },
      ...{ includeUsage: true, supportsStructuredOutputs: true },
    })(MODEL)
  const providers = { deepseek, compatible }

  test.each(['deepseek', 'compatible'] as const)('%s: streamText runs a tool loop to its end', async (name) => {
    const answer = streamText({
      ...{ model: providers[name](), temperature: 0, prompt: 'What is the weather in Paris?' },
      ...{ tools: { get_weather: weather }, stopWhen: stepCountIs(3) },
    })
    expect(await answer.text).toBe('The weather in Paris: 12 degrees, rain.')
    const steps = await answer.steps
    expect(steps.map(({ finishReason }) => finishReason)).toEqual(['tool-calls', 'stop'])
    expect((await answer.totalUsage).inputTokens).toBeGreaterThan(200)
    expect(steps[1]?.usage.inputTokenDetails.cacheReadTokens).toBeGreaterThan(0)
  })

  test('deepseek: thinking is streamed apart, and cached tokens are in its metadata', async () => {
    const ask = () =>
      streamText({
        ...{ model: deepseek(), temperature: 0, prompt: `${long}\n\nWhat is 7 + 5?`, maxOutputTokens: 1 },
        providerOptions: { deepseek: { thinking: { type: 'enabled' } } },
      })
    await ask().consumeStream()
    const metadata = await ask().providerMetadata
    const { promptCacheHitTokens: hit, promptCacheMissTokens: miss } = metadata?.deepseek ?? {}
    expect(hit).toBeGreaterThanOrEqual(128)
    expect(Number(hit) % 64).toBe(0)
    expect(miss).toBeGreaterThan(0)
    const sum = streamText({
      ...{ model: deepseek(), temperature: 0, prompt: 'What is 7 + 5?' },
      providerOptions: { deepseek: { thinking: { type: 'enabled' } } },
    })
    expect(await sum.reasoningText).toContain('7 + 5 = 12')
    expect(await sum.text).toBe('7 + 5 = 12')
  })

  test('deepseek: generateObject in JSON mode, without a schema and with one in the prompt', async () => {
    const ask = { model: deepseek(), temperature: 0, maxOutputTokens: 500 }
    const free = await generateObject({ ...ask, output: 'no-schema', prompt: 'What is the capital of Japan?' })
    expect(free.object).toEqual({ answer: 'The capital of Japan is Tokyo.' })
    const schema = z.strictObject({ reply: z.string() })
    const shaped = await generateObject({ ...ask, schema, prompt: 'What is the opposite of hot?' })
    expect(shaped.object).toEqual({ reply: 'The opposite of hot is cold.' })
    expect([free.finishReason, shaped.finishReason]).toEqual(['stop', 'stop'])
    expect(shaped.usage.inputTokens).toBeGreaterThan(free.usage.inputTokens ?? 0)
  })

  test('generateObject holds to the schema', async () => {
    const schema = z.object({ country: z.enum(['France', 'Spain']), millions: z.number().int() })
    const prompt = 'What is the capital of France?'
    const { object } = await generateObject({ model: compatible(), temperature: 0, schema, prompt })
    expect(schema.parse(object)).toEqual(object)
  })
}
