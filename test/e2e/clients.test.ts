// Real clients against what `npm start` boots: one stack, and one file of tests a client in clients/.
import { afterAll, beforeAll, describe } from 'vitest'
import { aiSdk } from './clients/ai_sdk.ts'
import { anthropicSdk } from './clients/anthropic.ts'
import { curl } from './clients/curl.ts'
import { langChain } from './clients/langchain.ts'
import { openAi } from './clients/openai.ts'
import { bootTestStack, type TestStack } from './stack.ts'

let stack: TestStack

beforeAll(async () => {
  stack = await bootTestStack()
})
afterAll(() => stack?.remove())

describe('curl', () => curl(() => stack))
describe('openai', () => openAi(() => stack))
describe('@anthropic-ai/sdk', () => anthropicSdk(() => stack))
describe('ai', () => aiSdk(() => stack))
describe('@langchain/deepseek', () => langChain(() => stack))
