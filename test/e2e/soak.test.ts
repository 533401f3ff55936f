// A short soak (`npm run soak` is the long one): unlike clients at once on few pages, then nothing runs, no page is held and the
// books agree.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bootSoakStack, soak } from '../soak/soak.ts'
import type { BareStack } from './workerd.ts'

const PAGES = 64
let stack: BareStack

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
