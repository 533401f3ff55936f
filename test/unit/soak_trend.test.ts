// How a soak tells a leak from a heap that finds its size.
import { expect, test } from 'vitest'
import { slopePerMinute, trendOf } from '../soak/trend.ts'

const series = (value: (minute: number) => number) =>
  Array.from({ length: 301 }, (_, i) => ({ at: 6 * i, value: value(i / 10) }))

test('the slope of a line is found, noise or not', () => {
  expect(slopePerMinute(series((m) => 100 + 3 * m))).toBeCloseTo(3)
  expect(slopePerMinute(series((m) => 100 + 3 * m + 20 * Math.sin(7 * m)))).toBeCloseTo(3, 0)
  expect(slopePerMinute([{ at: 1, value: 5 }])).toBe(0)
})

test('a heap that fills in the first minutes and stays has no trend; a leak has', () => {
  const fills = trendOf(series((m) => 300 - 200 * Math.exp(-m)))
  expect(fills.end - fills.start).toBeLessThan(1)
  expect(fills.perMinute).toBeLessThan(0.1)
  const leaks = trendOf(series((m) => 300 - 200 * Math.exp(-m) + 4 * m))
  expect(leaks.end - leaks.start).toBeGreaterThan(75)
  expect(leaks.perMinute).toBeCloseTo(4, 1)
  expect(leaks.most).toBeCloseTo(420, 0)
})
