// The times that a run's metrics are made of.
import { expect, test } from 'vitest'
import { RunClock } from '../../gpu-node/run_clock.ts'

test('the clock of a run: queue, prefill and decode add up, choices have gaps of their own', () => {
  let now = 1000
  const clock = new RunClock(() => now)
  now += 200
  clock.taken()
  now += 300
  expect(clock.tokens(0)).toBeUndefined()
  now += 50
  expect(clock.tokens(1)).toBeUndefined()
  now += 50
  expect(clock.tokens(0)).toBeCloseTo(0.1)
  expect(clock.toFirst).toBeCloseTo(0.5)
  now += 400
  const { queue, prefill, decode, whole } = clock.times()
  expect([queue, prefill, decode, whole].map((s) => Math.round((s ?? 0) * 1000))).toEqual([200, 300, 100, 1000])
  const never = new RunClock(() => now)
  now += 70
  expect(never.times()).toEqual({ queue: 0.07, prefill: undefined, decode: undefined, whole: 0.07 })
})
