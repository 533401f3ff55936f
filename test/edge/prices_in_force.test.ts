// Prices as an account meets them: the one in force is charged, no sooner and no later than it was announced.
import { afterEach, expect, test, vi } from 'vitest'
import { PRICE_NOTICE_MS } from '../../schema/limits.ts'
import { admin, admissionOf, objectOf, openAccount } from './world.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

test('an announced price is charged from its time on, also by an account that had read the old one', async () => {
  const model = crypto.randomUUID()
  const set = (nano: number, changes: object = {}) =>
    admin('PUT', '/prices', { model, hitNano: nano, missNano: nano, outputNano: nano, ...changes })
  const account = await openAccount(1e9)
  const start = Date.now()
  const missAt = async (ms: number): Promise<number | undefined> => {
    vi.spyOn(Date, 'now').mockReturnValue(start + ms)
    const admission = admissionOf(account, { model })
    expect((await objectOf(account).admit(admission)).kind).toBe('admitted')
    return (await objectOf(account).holdOf(admission.requestId))?.price.miss
  }
  await set(2, { effectiveFrom: start })
  expect(await missAt(0)).toBe(2)
  await set(3, { effectiveFrom: start + PRICE_NOTICE_MS })
  // Whoever had read the prices before it was announced, and whoever reads them now.
  expect(await missAt(PRICE_NOTICE_MS - 1)).toBe(2)
  expect(await missAt(PRICE_NOTICE_MS)).toBe(3)
  await set(4, { effectiveFrom: start + 2 * PRICE_NOTICE_MS })
  expect(await missAt(2 * PRICE_NOTICE_MS)).toBe(4)
})
