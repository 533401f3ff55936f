// The bench runs and says what it says; how fast is nobody's test.
import { expect, test } from 'vitest'
import { readOptions, runBench } from '../bench/engine.ts'
import { MODEL_DIR } from './golden.ts'

test('every row has speeds in order and a fraction of the ceiling where the processor has one', async () => {
  const options = readOptions([
    '--model',
    MODEL_DIR,
    '--depths',
    '0,200',
    '--prefill',
    '64',
    '--decode',
    '4',
    '--batch',
    '2',
    '--both',
    '--context',
    '5000',
  ])
  const { rows, limits, sampling } = await runBench({ ...options, repeats: 2 })
  expect(rows.map(({ what, depth, batch }) => [what, depth, batch])).toEqual([
    ['prefill', 0, 1],
    ['decode', 0, 1],
    ['dense', 0, 1],
    ['prefill', 200, 1],
    ['decode', 200, 1],
    ['dense', 200, 1],
    ['batch', 256, 2],
  ])
  for (const row of rows) {
    expect(row.least).toBeGreaterThan(0)
    expect(row.tokensPerSecond).toBeGreaterThanOrEqual(row.least)
    expect(row.most).toBeGreaterThanOrEqual(row.tokensPerSecond)
    if ((limits[0]?.bf16Flops ?? 0) > 0) expect(row.fraction).toBeGreaterThan(0)
  }
  for (const micros of Object.values(sampling)) expect(micros).toBeGreaterThan(0)
}, 60_000)

test('a wrong option is named', () => {
  expect(() => readOptions([])).toThrow(/usage: npm run bench:engine/)
  expect(() => readOptions(['--model', 'x', '--depths', '0,many'])).toThrow(/--depths: many is no whole number from 0/)
  expect(() => readOptions(['--model', 'x', '--threads', '0'])).toThrow(/--threads: 0 is no whole number from 1/)
})
