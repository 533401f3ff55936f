// Routing decisions, the breaker and the count of runs under way: pure, with a clock moved by hand.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Breaker } from '../../edge/breaker.ts'
import { InFlight } from '../../edge/in_flight.ts'
import { type Candidate, cost, overlapElsewhere, route } from '../../edge/router.ts'

const NOW = 1_000_000

const node = (id: string, changes: Partial<Candidate> = {}): Candidate => ({
  ...{ id, address: `http://${id}`, running: 0, waiting: 0, kvPages: 100, kvPagesUsed: 0, hitTokens: 0 },
  ...{ prefillTokensPerSecond: 1000, heartbeatAt: NOW, contextTokens: 4096 },
  ...changes,
})
const idle = { now: NOW, isOpen: () => false, ownLoad: () => ({ runs: 0, prefillMs: 0 }) }
const order = (nodes: Candidate[], affinity = 'a', promptTokens = 1000) =>
  route(nodes, { affinity, promptTokens }, idle).map(({ id }) => id)

test('the node with the prefix wins until it is so busy that computing it elsewhere is sooner', () => {
  const warm = (running: number) => node('warm', { hitTokens: 960, running })
  for (const affinity of ['a', 'b', 'c', 'd']) {
    expect(order([node('cold'), warm(10)], affinity)[0]).toBe('warm')
    expect(order([node('cold'), warm(60)], affinity)[0]).toBe('cold')
  }
})

test('a hot prefix spreads to a second node, and then both share it', () => {
  const nodes = [node('a', { hitTokens: 960 }), node('b'), node('c')]
  const flights = new InFlight()
  const taken: Record<string, number> = { a: 0, b: 0, c: 0 }
  for (let i = 0; i < 200; i++) {
    const around = { ...idle, ownLoad: (n: Candidate) => flights.since(n.id, n.heartbeatAt, NOW) }
    const chosen = route(nodes, { affinity: 'hot', promptTokens: 1000 }, around)[0]
    if (!chosen) throw new Error('no node')
    taken[chosen.id] = (taken[chosen.id] ?? 0) + 1
    flights.begin(chosen.id, NOW, 0)
    const at = nodes.findIndex(({ id }) => id === chosen.id)
    nodes[at] = { ...chosen, hitTokens: 960 }
  }
  const [a = 0, b = 0, c = 0] = [taken.a, taken.b, taken.c]
  expect(Math.min(a, b, c)).toBeGreaterThan(40)
})

test('a node that joins a fast fleet has its share at once, though it has measured nothing', () => {
  const fast = { prefillTokensPerSecond: 20_000 }
  const nodes = [node('a', fast), node('b', fast), node('new', { prefillTokensPerSecond: 0 })]
  const flights = new InFlight()
  const around = { ...idle, ownLoad: (n: Candidate) => flights.since(n.id, n.heartbeatAt, NOW) }
  const taken: Record<string, number> = { a: 0, b: 0, new: 0 }
  for (let i = 0; i < 120; i++) {
    const chosen = route(nodes, { affinity: `p${i}`, promptTokens: 2000 }, around)[0]
    if (!chosen) throw new Error('no node')
    taken[chosen.id] = (taken[chosen.id] ?? 0) + 1
    flights.begin(chosen.id, NOW, 0)
  }
  expect(Math.min(...Object.values(taken))).toBeGreaterThan(30)
})

test('equally good nodes: prompts that begin alike share one, different ones spread', () => {
  const nodes = ['a', 'b', 'c', 'd'].map((id) => node(id))
  const first = (affinity: string) => order(nodes, affinity)[0]
  expect(new Set(Array.from({ length: 20 }, () => first('same'))).size).toBe(1)
  const counts = new Map<string | undefined, number>()
  for (let i = 0; i < 4000; i++) counts.set(first(`p${i}`), (counts.get(first(`p${i}`)) ?? 0) + 1)
  for (const n of counts.values()) expect(Math.abs(n - 1000)).toBeLessThan(150)
  expect(counts.size).toBe(4)
})

test('stale nodes are never asked; those behind an open breaker only when nothing else lives', () => {
  const stale = node('stale', { heartbeatAt: NOW - 60_000, hitTokens: 999 })
  const around = { ...idle, isOpen: (id: string) => id === 'open' }
  const ids = (nodes: Candidate[]) => route(nodes, { affinity: 'a', promptTokens: 10 }, around).map(({ id }) => id)
  expect(ids([stale, node('open', { hitTokens: 999 }), node('good')])).toEqual(['good'])
  expect(ids([stale, node('open')])).toEqual(['open'])
})

test('queue, running work and memory each make a node dearer; a faster one is cheaper', () => {
  const none = { runs: 0, prefillMs: 0 }
  const base = cost(node('x'), none, 1000)
  expect(base).toBe(1000)
  expect(cost(node('x', { waiting: 2 }), none, 1000)).toBe(base + 2 * 275)
  expect(cost(node('x'), { runs: 2, prefillMs: 400 }, 1000)).toBe(base + 450)
  expect(cost(node('x', { kvPagesUsed: 100 }), none, 1000)).toBe(base + 2000)
  expect(cost(node('x', { prefillTokensPerSecond: 4000 }), none, 1000)).toBe(250)
})

test('a node that failed all night is tried again within a minute', () => {
  const breaker = new Breaker()
  for (let at = 0; at < 8 * 3_600_000; at += 60_000) {
    expect(breaker.isOpen('n', at)).toBe(false)
    for (let i = 0; i < 2; i++) breaker.failed('n', at)
  }
})

test('overlap elsewhere is what the best node holds beyond the one asked', () => {
  const [warm, cold] = [node('warm', { hitTokens: 640 }), node('cold', { hitTokens: 64 })]
  expect(overlapElsewhere([warm, cold], cold)).toBe(640)
  expect(overlapElsewhere([warm, cold], warm)).toBe(0)
})

test('the breaker opens at the second failure in a row, lets one run through, and doubles its patience', () => {
  const breaker = new Breaker()
  breaker.failed('n', 0)
  expect(breaker.isOpen('n', 0)).toBe(false)
  breaker.failed('n', 0)
  expect(breaker.state('n', 4999)).toBe('open')
  expect(breaker.isOpen('n', 5000)).toBe(false)
  breaker.began('n', 5000)
  expect(breaker.isOpen('n', 5001)).toBe(true)
  breaker.failed('n', 5001)
  expect(breaker.isOpen('n', 5001 + 9999)).toBe(true)
  expect(breaker.state('n', 5001 + 10_000)).toBe('half-open')
  breaker.answered('n')
  expect(breaker.state('n', 5002)).toBe('closed')
  breaker.failed('n', 6000)
  expect(breaker.state('n', 6001)).toBe('open')
  breaker.succeeded('n')
  expect(breaker.state('n', 5002)).toBe('closed')
})

test('a node that begins answers and breaks them off is left alone for ever longer, and has one run at a time', () => {
  const breaker = new Breaker()
  let now = 0
  for (let i = 0; i < 2; i++) breaker.failed('n', now, true)
  for (const patience of [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]) {
    expect(breaker.isOpen('n', now + patience - 1)).toBe(true)
    now += patience
    expect(breaker.isOpen('n', now)).toBe(false)
    breaker.began('n', now)
    breaker.answered('n')
    expect(breaker.isOpen('n', now + patience - 1)).toBe(true)
    // A run that its client left makes room for the next.
    breaker.undecided('n')
    expect(breaker.isOpen('n', now)).toBe(false)
    breaker.began('n', now)
    breaker.failed('n', now, true)
  }
  now += 60_000
  breaker.began('n', now)
  expect(breaker.isOpen('n', now)).toBe(true)
  breaker.succeeded('n')
  expect(breaker.state('n', now)).toBe('closed')
})

test('runs that break together open the breaker once', () => {
  const breaker = new Breaker()
  for (let i = 0; i < 10; i++) breaker.failed('n', i)
  expect(breaker.state('n', 5000)).toBe('open')
  expect(breaker.state('n', 5001)).toBe('half-open')
})

test('own runs count between heartbeats: begun since then on top, ended since then off', () => {
  const flights = new InFlight()
  const old = flights.begin('n', 10, 50)
  const young = flights.begin('n', 30, 70)
  expect(flights.since('n', 20, 40)).toEqual({ runs: 1, prefillMs: 90 })
  young.answered()
  old.ended(45)
  old.ended(46)
  expect(flights.since('n', 20, 50)).toEqual({ runs: 0, prefillMs: 0 })
  young.ended(60)
  expect(flights.since('n', 20, 60)).toEqual({ runs: -1, prefillMs: 0 })
  expect(flights.since('n', 50, 60)).toEqual({ runs: -1, prefillMs: 0 })
  expect(flights.since('n', 61, 62)).toEqual({ runs: 0, prefillMs: 0 })
  expect(flights.count('n')).toBe(0)
})

test('a whole answer that is still being written does not pass for a prompt that is still being computed', () => {
  const flights = new InFlight()
  const warm = node('warm', { hitTokens: 960 })
  for (let i = 0; i < 3; i++) flights.begin('warm', NOW, 2000)
  const first = (now: number) =>
    route(
      [{ ...warm, heartbeatAt: now }, node('cold', { heartbeatAt: now })],
      { affinity: 'a', promptTokens: 1000 },
      { now, isOpen: () => false, ownLoad: (n) => flights.since(n.id, n.heartbeatAt, now) },
    )[0]?.id
  expect(flights.since('warm', NOW, NOW)).toEqual({ runs: 3, prefillMs: 6000 })
  expect(first(NOW + 1)).toBe('cold')
  expect(flights.since('warm', NOW, NOW + 5000).prefillMs).toBe(1000)
  expect(first(NOW + 6000)).toBe('warm')
})

test('what a heartbeat cannot know is what counting every run says, whatever began, ended and was asked between', () => {
  const step = fc.record({ what: fc.constantFrom('begin', 'end', 'ask', 'beat'), which: fc.nat(50), wait: fc.nat(3) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const flights = new InFlight()
      const runs: { beganAt: number; endedAt?: number; end: (at: number) => void }[] = []
      let [now, heartbeatAt] = [100, 100]
      for (const { what, which, wait } of steps) {
        now += wait
        const run = runs[which % Math.max(1, runs.length)]
        if (what === 'begin') runs.push({ beganAt: now, end: flights.begin('n', now, 0).ended })
        if (what === 'beat') heartbeatAt = now
        if (what === 'end' && run && run.endedAt === undefined) {
          run.endedAt = now
          run.end(now)
        }
        if (what !== 'ask') continue
        const since = runs.filter((r) => r.endedAt === undefined && r.beganAt >= heartbeatAt).length
        const counted = runs.filter((r) => r.beganAt < heartbeatAt && (r.endedAt ?? 0) >= heartbeatAt).length
        expect(flights.since('n', heartbeatAt, now).runs).toBe(since - counted)
      }
    }),
  )
})
