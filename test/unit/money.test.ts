// Money: exact integers, and a hold that no run can exceed.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { costOf, DEFAULT_PRICE, formatUsd, holdOf, NANO_PER_USD, parseUsd } from '../../schema/money.ts'

const tokens = fc.nat({ max: 1_000_000 })
const price = fc.record({
  hit: fc.nat({ max: 10_000 }),
  miss: fc.nat({ max: 10_000 }),
  output: fc.nat({ max: 10_000 }),
})

test('the published prices, in dollars for a million tokens', () => {
  expect(formatUsd(costOf({ hit: 1_000_000, miss: 0, output: 0 }, DEFAULT_PRICE))).toBe('0.028000000')
  expect(formatUsd(costOf({ hit: 0, miss: 1_000_000, output: 0 }, DEFAULT_PRICE))).toBe('0.280000000')
  expect(formatUsd(costOf({ hit: 0, miss: 0, output: 1_000_000 }, DEFAULT_PRICE))).toBe('0.420000000')
})

test('cost is the exact integer', () => {
  fc.assert(
    fc.property(tokens, tokens, tokens, price, (hit, miss, output, p) => {
      const cost = costOf({ hit, miss, output }, p)
      const exact = BigInt(hit) * BigInt(p.hit) + BigInt(miss) * BigInt(p.miss) + BigInt(output) * BigInt(p.output)
      expect(BigInt(cost)).toBe(exact)
    }),
  )
})

test('no run costs more than its hold: tokens of a prompt never outnumber its bytes', () => {
  fc.assert(
    fc.property(
      tokens,
      fc.nat({ max: 100_000 }),
      price,
      fc.double({ min: 0, max: 1, noNaN: true }),
      (bytes, max, p, x) => {
        const prompt = Math.floor(bytes * x)
        const hit = Math.floor(prompt * x)
        const output = Math.floor(max * x)
        expect(costOf({ hit, miss: prompt - hit, output }, p)).toBeLessThanOrEqual(holdOf(bytes, max, p))
      },
    ),
  )
  expect(holdOf(100, 10, DEFAULT_PRICE)).toBe(100 * 280 + 10 * 420)
  expect(holdOf(1, 0, { hit: 5, miss: 3, output: 0 })).toBe(5)
})

test('dollars are written and read without loss', () => {
  fc.assert(
    fc.property(fc.nat({ max: 9_000_000 }), fc.nat({ max: NANO_PER_USD - 1 }), (usd, nano) => {
      const amount = usd * NANO_PER_USD + nano
      expect(parseUsd(formatUsd(amount))).toBe(amount)
    }),
  )
  expect(formatUsd(0)).toBe('0.000000000')
  expect(formatUsd(-1)).toBe('-0.000000001')
  expect(formatUsd(-1_500_000_000)).toBe('-1.500000000')
  expect(formatUsd(1_234_567_890)).toBe('1.234567890')
})

test.each([
  ['10', 10 * NANO_PER_USD],
  ['0.5', 500_000_000],
  [' 1.000000001 ', 1_000_000_001],
  ['', undefined],
  ['-1', undefined],
  ['1e3', undefined],
  ['.5', undefined],
  ['1.', undefined],
  ['0.0000000001', undefined],
  ['12345678', undefined],
])('parseUsd(%j) is %j', (text, amount) => {
  expect(parseUsd(text)).toBe(amount)
})
