// The bench of metering in small: what it injects must leave no loss, no duplicate, no row that disagrees.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { z } from 'zod'

const BENCH = join(import.meta.dirname, '..', 'bench', 'metering.ts')
const SOUND = {
  losses: 0,
  duplicates: 0,
  phantoms: 0,
  wrongRows: 0,
  wrongCharges: 0,
  wrongBalances: 0,
  wrongHours: 0,
  notDerivable: 0,
}
const resultSchema = z.looseObject({ due: z.number(), faults: z.record(z.string(), z.number()) })

test('thousands of runs with faults injected: each due run once in the ledger', () => {
  const text = execFileSync(process.execPath, [BENCH, '--events', '4000', '--seed', '7', '--json'], {
    encoding: 'utf8',
  })
  const result = resultSchema.parse(JSON.parse(text))
  expect(result).toMatchObject({ events: 4000, delivered: true, changedRecords: 0, auditFindings: 0, ...SOUND })
  expect(result.due).toBeGreaterThan(3500)
  expect(Object.values(result.faults).reduce((sum, n) => sum + n, 0)).toBeGreaterThan(100)
})
