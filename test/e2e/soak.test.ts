// A short soak (`npm run soak` is the long one): unlike clients at once on few pages, then nothing runs, no page is held and the
// books agree.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bootSoakStack, soak } from '../soak/soak.ts'
import { post } from './customer.ts'
import type { BareStack } from './workerd.ts'

const PAGES = 64
let stack: BareStack

const preemptions = async (): Promise<number> => {
  const text = await (await fetch(`${stack.nodeUrl}/metrics`)).text()
  return Number(/^vllm:num_preemptions_total\S* (\d+)$/m.exec(text)?.[1])
}

beforeAll(async () => {
  stack = await bootSoakStack(PAGES)
})
afterAll(() => stack?.remove())

test('twenty seconds of everything at once leave nothing behind', async () => {
  const report = await soak(stack, { seconds: 20, clients: 8, kvPages: PAGES, seed: 1 })
  expect(report.wrong).toEqual([])
  expect(report.runs).toBeGreaterThan(20)
  expect(report.usageRows).toBe(report.runs)
  expect(report.hits).toBeGreaterThan(0)
}, 240_000)

test('two runs that want more pages than there are: one gives its own back, and both come to their end', async () => {
  const before = await preemptions()
  const ask = (seed: number) => {
    const how = { ignore_eos: true, max_tokens: 3200, temperature: 1, seed, stream: true }
    return post(stack, {
      messages: [{ role: 'user', content: 'Hello!' }],
      ...how,
      stream_options: { include_usage: true },
    })
  }
  const texts = await Promise.all([1, 2].map(async (seed) => (await ask(seed)).text()))
  for (const text of texts) expect(text).toContain('"completion_tokens":3200')
  expect(await preemptions()).toBeGreaterThan(before)
}, 240_000)
