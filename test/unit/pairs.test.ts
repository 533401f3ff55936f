// The arithmetic of bench:peer and its options; what needs the peer itself is measured, not tested.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { comparePairs, predictFill } from '../bench/peer/pairs.ts'
import { readPeerOptions } from '../bench/peer.ts'

test('the ratio is the median of the ratios pair by pair, not the ratio of medians', () => {
  const { ours, peer, ratios, median: middle } = comparePairs(100, { ours: [1, 2, 4], peer: [2, 2, 16] }, 500)
  expect(ours).toEqual([100, 50, 25])
  expect(peer).toEqual([50, 50, 6.25])
  expect(ratios).toEqual([2, 1, 4])
  expect(middle).toEqual({ ours: 50, peer: 50, ratio: 2 })
})

test('a peer left out has no speed and no ratio', () => {
  expect(comparePairs(64, { ours: [1], peer: [] }, 100).median).toEqual({ ours: 64, peer: null, ratio: null })
})

test('a fill whose tokens cost a + b * depth is predicted', () => {
  const cost = (a: number, b: number, depth: number): number => a + b * depth
  fc.assert(
    fc.property(
      fc.double({ min: 1e-4, max: 0.1, noNaN: true }),
      fc.double({ min: 0, max: 1e-5, noNaN: true }),
      (a, b) => {
        const samples = [256, 768, 1280, 1792].map((depth) => ({ depth, secondsPerToken: cost(a, b, depth) }))
        const exact = a * 30_720 + (b * (32_768 ** 2 - 2048 ** 2)) / 2
        expect(predictFill(samples, 2048, 32_768) / exact).toBeCloseTo(1, 6)
      },
    ),
  )
})

test('noise that falls with depth does not predict a fill for nothing', () => {
  const samples = [256, 768].map((depth, i) => ({ depth, secondsPerToken: 0.02 - 0.01 * i }))
  expect(predictFill(samples, 1024, 32_768)).toBeCloseTo(0.015 * 31_744, 6)
})

test('options: the defaults are the table of the README, a wrong one is named', () => {
  expect(readPeerOptions([])).toMatchObject({
    ...{ shape: 'mid', depths: [0, 4096, 16384, 32768], batch: [16], pairs: 2, prefill: 512, decode: 64 },
    ...{ peerSeconds: 900, answers: [40, 600] },
  })
  expect(readPeerOptions(['--depths', '', '--batch', '', '--no-answers'])).toMatchObject({
    depths: [],
    batch: [],
    answers: [],
  })
  expect(() => readPeerOptions(['--shape', 'toString'])).toThrow(/--shape: toString is none of mid, tiny, wide/)
  expect(() => readPeerOptions(['--pairs', '0'])).toThrow(/--pairs: 0 is no whole number from 1/)
  expect(() => readPeerOptions(['--peer', 'x'])).toThrow(/--peer/)
})
