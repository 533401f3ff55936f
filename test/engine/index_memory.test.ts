// Index scores are never held whole: what a long prompt takes beyond its KV pages does not grow with its length.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { EVERY_ISA, runnableIsas } from './engines.ts'
import { MODEL_DIR } from './golden.ts'

const MIB = 2 ** 20
// The best of this processor, which is what a node takes.
const isas = await runnableIsas(MODEL_DIR, EVERY_ISA.slice(1))

test.each(isas.slice(-1))('%s: a prompt four times as long takes its pages and little more', (isa) => {
  const script = join(import.meta.dirname, 'index_memory.ts')
  const run = spawnSync(process.execPath, [script, isa], { encoding: 'utf8' })
  expect(run.stderr).toBe('')
  const { short, long, kvBytes, wholeScores } = JSON.parse(run.stdout) as Record<string, number>
  // Scores of every position for each token of a piece would be seen.
  expect(wholeScores).toBeGreaterThan(2.5 * 24 * MIB)
  expect((long ?? 0) - (short ?? 0)).toBeLessThan((kvBytes ?? 0) + 24 * MIB)
})
