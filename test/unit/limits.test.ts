// Rates, address ranges and durations: pure, so tested without a Worker.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Bucket, Rates } from '../../edge/account/rates.ts'
import { duration } from '../../edge/flow/rate_headers.ts'
import { ipInRanges, isIpRange } from '../../schema/ip.ts'

test.each([
  ['203.0.113.7', ['203.0.113.0/24'], true],
  ['203.0.114.7', ['203.0.113.0/24'], false],
  ['203.0.113.7', ['203.0.113.7'], true],
  ['203.0.113.8', ['203.0.113.7', '198.51.100.0/30'], false],
  ['0.0.0.0', ['0.0.0.0/0'], true],
  ['2001:db8::1', ['2001:db8::/32'], true],
  ['2001:db9::1', ['2001:db8::/32'], false],
  ['::ffff:203.0.113.7', ['203.0.113.0/24'], true],
  ['2001:db8::1', ['0.0.0.0/0'], false],
  ['1.2.3.4', ['::/0'], true],
  ['', ['0.0.0.0/0'], false],
  ['nonsense', ['::/0'], false],
])('%s in %j: %s', (ip, ranges, expected) => {
  expect(ipInRanges(ip, ranges)).toBe(expected)
})

test('what is no range is refused when it is set, not when it is used', () => {
  for (const good of ['1.2.3.4', '1.2.3.0/24', '::', '::1/128', 'fe80::/10', '1:2:3:4:5:6:7:8'])
    expect(isIpRange(good)).toBe(true)
  for (const bad of [
    '',
    '1.2.3',
    '1.2.3.256',
    '01.2.3.4',
    '1.2.3.4/33',
    '1.2.3.4/',
    '1::2::3',
    ':::',
    '::/129',
    '1:2:3:4:5:6:7:8:9',
    'g::',
  ])
    expect(isIpRange(bad), bad).toBe(false)
})

test('an address lies in the range that its own leading bits make', () => {
  fc.assert(
    fc.property(fc.ipV4(), fc.integer({ min: 0, max: 32 }), fc.ipV4(), (base, bits, ip) => {
      const number = (text: string) => text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
      const same = Math.floor(number(base) / 2 ** (32 - bits)) === Math.floor(number(ip) / 2 ** (32 - bits))
      expect(ipInRanges(ip, [`${base}/${bits}`])).toBe(same)
    }),
  )
})

test('a bucket lets no more through in any window than its limit and one refill', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100 }), fc.array(fc.nat(5_000), { maxLength: 200 }), (limit, gaps) => {
      const bucket = new Bucket(limit, 0)
      let now = 0
      let taken = 0
      for (const gap of gaps) {
        now += gap
        if (bucket.waitFor(1, now) > 0) continue
        bucket.take(1, now)
        taken++
      }
      expect(taken).toBeLessThanOrEqual(limit + (now * limit) / 60_000 + 1e-6)
    }),
  )
})

test('what a run used beyond its estimate is a debt that time pays', () => {
  const bucket = new Bucket(60, 0)
  bucket.take(120, 0)
  expect(bucket.waitFor(1, 0)).toBe(61_000)
  expect(bucket.waitFor(1, 60_999)).toBeGreaterThan(0)
  expect(bucket.waitFor(1, 61_000)).toBe(0)
})

test('a clock that steps back gives no minute twice', () => {
  const bucket = new Bucket(60, 60_000)
  bucket.take(60, 60_000)
  expect(bucket.level(0)).toBe(0)
  expect(bucket.level(60_000)).toBe(0)
  expect(bucket.level(61_000)).toBe(1)
})

test('what is given back fills a bucket, and no more', () => {
  const bucket = new Bucket(60, 0)
  bucket.take(-30, 0)
  expect(bucket.level(0)).toBe(60)
})

test('a run larger than the limit waits for a full bucket, not for ever', () => {
  const bucket = new Bucket(10, 0)
  expect(bucket.waitFor(1_000, 0)).toBe(0)
  bucket.take(1_000, 0)
  expect(bucket.waitFor(1_000, 0)).toBe(1_000 * 6_000)
})

test('the header shows the tighter of key and account; cached tokens are limited apart', () => {
  const rates = new Rates()
  const scopes = [
    ['key', { requestsPerMinute: 5, cachedTokensPerMinute: 100 }],
    ['', { requestsPerMinute: 3, uncachedTokensPerMinute: 1000 }],
  ] as const
  rates.take(scopes, { requests: 1, tokens: 400, 'cached-tokens': 250 }, 0)
  expect(rates.states(scopes, 0)).toEqual([
    { kind: 'requests', limit: 3, remaining: 2, resetMs: 20_000 },
    { kind: 'tokens', limit: 1000, remaining: 600, resetMs: 24_000 },
    { kind: 'cached-tokens', limit: 100, remaining: 0, resetMs: 150_000 },
  ])
  expect(rates.waitFor(scopes, { requests: 1, tokens: 1, 'cached-tokens': 1 }, 0)).toBe(90_600)
  // Each of the two has its own bucket, also of one kind.
  rates.take(scopes, { requests: 1, tokens: 0, 'cached-tokens': 0 }, 0)
  expect(rates.states(scopes, 0)[0]).toMatchObject({ limit: 3, remaining: 1 })
  expect(rates.states([scopes[0]], 0)[0]).toMatchObject({ limit: 5, remaining: 3 })
})

test('times are written as OpenAI writes them', () => {
  expect([0, 120, 1000, 1500, 59_999, 360_000, 61_200].map(duration)).toEqual([
    ...['0ms', '120ms', '1s', '1.5s', '59.999s', '6m0s', '1m2s'],
  ])
})
