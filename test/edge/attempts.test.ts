// Attempts of one run, node by node: when they count as load, and when a node is given up.
import { env } from 'cloudflare:workers'
import { afterEach, expect, test, vi } from 'vitest'
import { breaker, inFlight, pulse } from '../../edge/fleet.ts'
import { type Dispatch, dispatch } from '../../edge/flow/retry.ts'
import { Pulse } from '../../edge/pulse.ts'
import type { Candidate } from '../../edge/router.ts'
import type { RunRequest } from '../../schema/wire.ts'
import { COST, chat, idOf, MODEL, objectOf, openAccount, receiptOf, registerNode, removeNodes, send } from './world.ts'

afterEach(async () => {
  vi.restoreAllMocks()
  for (const id of ['frozen', 'freezes', 'down', 'breaks', 'draining', 'good']) breaker.succeeded(id)
  await removeNodes()
})

const candidate = (id: string): Candidate => ({
  ...{ id, address: env.NODE_ADDRESSES[id] ?? '', running: 0, waiting: 0, kvPages: 100, kvPagesUsed: 0, hitTokens: 0 },
  ...{ prefillTokensPerSecond: 1000, heartbeatAt: Date.now(), contextTokens: 4096 },
})

/** The little servers look at nothing but `stream`. */
const runTo = (ids: readonly string[], stream: boolean, changes: Partial<Dispatch> = {}): Dispatch => ({
  secrets: [env.SPARROW_SECRET],
  nodes: ids.map(candidate),
  request: { run: { requestId: crypto.randomUUID(), model: MODEL, stream } } as Omit<RunRequest, 'attempt'>,
  promptTokens: 10,
  ...{ signal: new AbortController().signal, pulseMs: 5_000 },
  onAttempt: async () => {},
  ...changes,
})

test('a run counts as load of its node before its account is told where it goes', async () => {
  const seen: [string, number][] = []
  const onAttempt = async ({ id }: Candidate): Promise<void> => void seen.push([id, inFlight.count(id)])
  const answered = await dispatch(runTo(['down', 'good'], false, { onAttempt }))
  expect(seen).toEqual([
    ['down', 1],
    ['good', 1],
  ])
  if (answered.ok) answered.ended(false)
  const failing = async (): Promise<void> => Promise.reject(new Error('Network connection lost.'))
  await expect(dispatch(runTo(['good'], false, { onAttempt: failing }))).rejects.toThrow('connection lost')
  expect(['down', 'good'].map((id) => inFlight.count(id))).toEqual([0, 0])
})

/** Nodes are asked twice a second whether they live. */
const watchClosely = (): void => {
  const watch = pulse.watch.bind(pulse)
  vi.spyOn(pulse, 'watch').mockImplementation((node, _, ...told) => watch(node, 500, ...told))
}

test.each([true, false])(
  'a node that froze before its head is given up: another one answers, and only its receipt counts (stream: %s)',
  async (stream) => {
    watchClosely()
    const account = await openAccount(1e9)
    const frozen = await registerNode('frozen')
    const good = await registerNode('good', 100)
    const response = await chat(account.key, { stream })
    expect([response.status, await response.text()]).toEqual([200, expect.stringContaining('"whole":1')])
    const id = idOf(response)
    const { attempts } = (await objectOf(account).holdOf(id)) ?? {}
    expect(attempts).toEqual([{ attempt: 1, nodeId: 'frozen', code: 'node_failed' }])
    // It thaws, begins, and sees that nobody waits any more.
    await send(frozen, [receiptOf(frozen, account, id, { finish: 'cancelled', missTokens: 20 })])
    expect((await objectOf(account).holdOf(id))?.state).toBe('open')
    await send(good, [receiptOf(good, account, id, { attempt: 2 })])
    expect(await objectOf(account).balance()).toEqual({ balanceNano: 1e9 - COST, heldNano: 0 })
    expect(inFlight.count('frozen')).toBe(0)
  },
)

test('where no other node lives a frozen one is a 503, and nothing stays held, whatever it says later', async () => {
  watchClosely()
  const account = await openAccount(1e9)
  const frozen = await registerNode('frozen')
  const response = await chat(account.key)
  expect(response.status).toBe(503)
  await send(frozen, [receiptOf(frozen, account, idOf(response))])
  expect(await objectOf(account).balance()).toEqual({ balanceNano: 1e9, heldNano: 0 })
})

test('a node that freezes behind its head ends its stream with an error frame', async () => {
  watchClosely()
  const account = await openAccount(1e9)
  await registerNode('freezes')
  const text = await (await chat(account.key, { stream: true })).text()
  expect(text).toContain('"first":1')
  expect(text).toContain('stream_interrupted')
  expect(inFlight.count('freezes')).toBe(0)
})

test('a node that computes long, and says that it lives, is waited for', async () => {
  watchClosely()
  const account = await openAccount(1e9)
  await registerNode('slow')
  await registerNode('good', 100)
  const response = await chat(account.key)
  expect(await response.text()).toContain('"whole":1')
  expect((await objectOf(account).holdOf(idOf(response)))?.attempts).toEqual([])
})

test('runs of one isolate share their questions', async () => {
  const quick = new Pulse()
  const node = candidate('other')
  const fetched = vi.spyOn(globalThis, 'fetch')
  const asked = () => fetched.mock.calls.filter(([url]) => url === `${node.address}/livez`).length
  const began = Date.now()
  const stops = Array.from({ length: 20 }, () =>
    quick.watch(node, 200, () => Number.POSITIVE_INFINITY, expect.unreachable),
  )
  await vi.waitFor(() => expect(asked()).toBeGreaterThanOrEqual(5), 20_000)
  for (const stop of stops) stop()
  expect(asked()).toBeLessThanOrEqual((Date.now() - began) / 180)
})

test('a platform that lets a run ask no more says nothing of its node', async () => {
  const fetched = vi.spyOn(globalThis, 'fetch').mockRejectedValue(new Error('Too many subrequests.'))
  const stop = new Pulse().watch(candidate('other'), 20, () => 1, expect.unreachable)
  await vi.waitFor(() => expect(fetched.mock.calls.length).toBeGreaterThan(3), 20_000)
  stop()
})

test('a node that breaks off what it began costs one answer each time it is tried, ever more seldom', async () => {
  const { key } = await openAccount(1e9)
  await registerNode('breaks')
  await registerNode('good', 100)
  let now = Date.now()
  vi.spyOn(Date, 'now').mockImplementation(() => now)
  const broken = async (): Promise<number> => {
    const texts = Array.from({ length: 3 }, async () => (await chat(key, { stream: true })).text())
    return (await Promise.all(texts)).filter((text) => text.includes('stream_interrupted')).length
  }
  await broken()
  const counts: number[] = []
  for (const after of [4_900, 100, 5_000, 5_000, 19_000, 1_000]) {
    now += after
    counts.push(await broken())
  }
  expect(counts).toEqual([0, 1, 0, 1, 0, 1])
})

test('a prompt does not follow a redirect, and the log says what answered', async () => {
  const logged = vi.spyOn(console, 'warn')
  const answered = await dispatch(runTo(['moved'], false))
  expect(answered.ok ? 'answered' : answered.error.code).toBe('no_node')
  expect(logged.mock.calls.join()).toContain('not a node: it answered 307')
})

test("what is too large for a node's proxy goes to another node, and opens no breaker", async () => {
  for (let i = 0; i < 3; i++) expect((await dispatch(runTo(['small', 'good'], false))).ok).toBe(true)
  expect(breaker.state('small', Date.now())).toBe('closed')
  const answered = await dispatch(runTo(['small'], false))
  expect(answered.ok ? 'answered' : answered.error.code).toBe('request_too_large')
})

test('a run that is refused while a node is tried makes room for the next one', async () => {
  for (let i = 0; i < 2; i++) breaker.failed('draining', Date.now() - 6_000)
  expect((await dispatch(runTo(['draining'], false))).ok).toBe(false)
  expect(breaker.isOpen('draining', Date.now())).toBe(false)
})

test('a run whose account could not be told leaves room for the next one to try its node', async () => {
  for (let i = 0; i < 2; i++) breaker.failed('good', Date.now() - 6_000)
  const onAttempt = async (): Promise<void> => Promise.reject(new Error('Network connection lost.'))
  await expect(dispatch(runTo(['good'], false, { onAttempt }))).rejects.toThrow('connection lost')
  expect(breaker.isOpen('good', Date.now())).toBe(false)
})
