// Real clients against what `npm start` boots: one stack, and one file of tests a client in clients/.
import { afterAll, beforeAll, describe } from 'vitest'
import { anthropicSdk } from './clients/anthropic.ts'
import { curl } from './clients/curl.ts'
import { bootTestStack, type TestStack } from './stack.ts'

let stack: TestStack

beforeAll(async () => {
  stack = await bootTestStack()
})
afterAll(() => stack?.remove())

describe('curl', () => curl(() => stack))
describe('@anthropic-ai/sdk', () => anthropicSdk(() => stack))
