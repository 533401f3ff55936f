// What benches make of repeated measurements.
import { expect, test } from 'vitest'
import { median, percentile } from '../bench/statistics.ts'

test('the median is the middle, of an even number the mean of the two middle ones', () => {
  expect(median([3, 1, 2])).toBe(2)
  expect(median([10, 1, 2, 5])).toBe(3.5)
  expect(median([])).toBeNaN()
})

test('percentiles are values that came', () => {
  const values = Array.from({ length: 100 }, (_, i) => 100 - i)
  expect([0.5, 0.9, 0.99, 1].map((share) => percentile(values, share))).toEqual([50, 90, 99, 100])
  expect(percentile([7], 0.99)).toBe(7)
  expect(percentile([], 0.5)).toBeNaN()
})
