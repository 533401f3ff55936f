// A routing hint: the same node for the same hint, nothing moved that need not move, never above what a cached prompt is worth.
import { expect, test } from 'vitest'
import { withHint } from '../../edge/hint.ts'
import { type Candidate, route } from '../../edge/router.ts'

const node = (id: string, extra: Partial<Candidate> = {}): Candidate => ({
  ...{ id, address: 'http://n', running: 0, waiting: 0, prefillTokensPerSecond: 1000, kvPages: 0, kvPagesUsed: 0 },
  ...{ heartbeatAt: 1000, contextTokens: 4096, hitTokens: 0, ...extra },
})
const around = { now: 1000, isOpen: () => false, ownLoad: () => ({ runs: 0, prefillMs: 0 }) }
const nodes = ['a', 'b', 'c', 'd'].map((id) => node(id))
const first = (hint: string | undefined, from: readonly Candidate[] = nodes, tenant = 't'): string | undefined =>
  route(withHint(from, tenant, hint), { promptTokens: 1000, affinity: 'any' }, around)[0]?.id

test('hints spread over the nodes, each stays on its own, and only those of a node that goes move', () => {
  const hints = Array.from({ length: 200 }, (_, i) => `session ${i}`)
  const before = hints.map((hint) => first(hint))
  for (const { id } of nodes) expect(before.filter((at) => at === id).length).toBeGreaterThan(25)
  expect(hints.map((hint) => first(hint, nodes.toReversed()))).toEqual(before)
  const left = nodes.filter(({ id }) => id !== 'b')
  expect(hints.map((hint) => first(hint, left)).filter((at, i) => at !== before[i]).length).toBe(
    before.filter((at) => at === 'b').length,
  )
  expect(hints.map((hint) => first(hint, nodes, 'other'))).not.toEqual(before)
})

test('a cached prompt or a queue counts for more', () => {
  const away = nodes.find(({ id }) => id !== first('h'))?.id ?? ''
  expect(first('h', [...nodes.filter(({ id }) => id !== away), node(away, { hitTokens: 512 })])).toBe(away)
  const busy = first('h') ?? ''
  expect(first('h', [...nodes.filter(({ id }) => id !== busy), node(busy, { waiting: 1 })])).not.toBe(busy)
  expect(nodes.map(({ id }) => id)).toContain(first(undefined))
})
