// A small version of `npm run bench:router`: on the same trace the real router finds more cached tokens than round-robin and
// least-loaded, and leaves no node as far behind as any of the four others.
import { expect, test } from 'vitest'
import { POLICIES, Simulation } from '../bench/router/simulate.ts'
import { trace } from '../bench/router/trace.ts'

test('affinity and load together beat each alone', () => {
  const spanMs = 480_000
  const requests = trace({ sessions: 1500, seed: 2, spanMs, systemPrompts: 50 })
  const fleet = { nodes: 8, cacheTokens: 400_000, prefillTokensPerSecond: 2500, decodeTokensPerSecond: 40 }
  const [sparrow, ...others] = POLICIES.map((policy) => new Simulation(policy, fleet, spanMs).run(requests))
  if (!sparrow) throw new Error('no outcome')
  const [roundRobin, leastLoaded] = others
  expect(sparrow.hitRate).toBeGreaterThan((roundRobin?.hitRate ?? 1) + 0.1)
  expect(sparrow.hitRate).toBeGreaterThan((leastLoaded?.hitRate ?? 1) + 0.1)
  for (const other of others) {
    expect(sparrow.ttftP99Ms).toBeLessThan(other.ttftP99Ms)
    expect(sparrow.imbalanceP99).toBeLessThan(other.imbalanceP99)
  }
})
