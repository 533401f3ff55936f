// A bench that is asked for what it does not have, or for a number that is none, says so in one line and does not run.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const BENCHES = join(import.meta.dirname, '..', 'bench')

test.each([
  ['router', '--nodes', /^bench:router: --nodes: 'x' is no number\n$/],
  ['prefix', '--seed', /^bench:prefix: --seed: 'x' is no number\n$/],
  ['edge', '--seconds', /^bench:edge: --seconds: 'x' is no number\n$/],
  ['metering', '--seed', /^bench:metering: --seed: 'x' is no number\n$/],
  ['itl', '--streams', /^bench:itl: --streams: x is no whole number from 1\n$/],
  ['held_out', '--tokens', /^bench:held-out: Unknown option '--tokens'[^\n]*\n$/],
])('bench %s %s x', (bench, option, line) => {
  const ran = spawnSync(process.execPath, [join(BENCHES, `${bench}.ts`), option, 'x'], { encoding: 'utf8' })
  expect([ran.status, ran.stdout, ran.stderr]).toEqual([2, '', expect.stringMatching(line)])
})
