// When segments leave: soon after quiet, at most four a second under load, full ones at once. Disk and network are left out.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test, vi } from 'vitest'
import { backoffMs } from '../../gpu-node/backoff.ts'
import { EdgeLink } from '../../gpu-node/heartbeat.ts'
import { Shipper } from '../../gpu-node/shipper.ts'
import { PATHS, type Receipt, type Segment, type SignedReceipt } from '../../schema/wire.ts'

const pair = (await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])) as CryptoKeyPair

const receipt = (changes: Partial<Receipt> = {}): Receipt => ({
  ...{ version: 1, requestId: crypto.randomUUID(), attempt: 1, accountId: 'a', keyId: 'k', nodeId: 'n', epoch: 'e' },
  ...{ seq: 0, model: 'm', hitTokens: 0, missTokens: 1, outputTokens: 1, reasoningTokens: 0, finish: 'stop' },
  ...{ openedAt: 1, firstTokenAt: 1, closedAt: 1, prefix: [], ...changes },
})

type Answer = (receipts: readonly Receipt[], pending: ReadonlyMap<string, Receipt>) => Response
const taking = (acknowledged: readonly Receipt[]) => Response.json({ acknowledged, refused: [] })

/** An edge that takes everything, unless told; what it was sent, and when. */
const shipping = (answer: Answer = taking, onUnknown = () => {}) => {
  const pending = new Map<string, Receipt>()
  const sent: { at: number; receipts: number; ids: string[] }[] = []
  const shipper = new Shipper({
    ...{ edgeUrl: 'http://edge', deadLetterFile: '/dev/null', onUnknown, onSettled: () => {} },
    identity: { privateKey: pair.privateKey, sign: async () => 'Bearer x' },
    journal: { pending, acknowledge: ({ requestId }) => void pending.delete(`${requestId}/1`) },
    chain: {
      ...{ unconfirmed: undefined, confirm: async () => {}, restart: async () => {} },
      seal: async (receipts: readonly SignedReceipt[]) =>
        JSON.stringify({ nodeId: 'n', link: { chain: 'c', index: sent.length, previous: '' }, receipts }),
    },
    fetch: async (_, init) => {
      const segment = JSON.parse(new TextDecoder().decode(init?.body as Uint8Array)) as Segment
      const receipts = segment.receipts.map(({ receipt: r }) => r)
      sent.push({ at: performance.now(), receipts: receipts.length, ids: receipts.map((r) => r.requestId) })
      return answer(receipts, pending)
    },
  })
  const close = (changes: Partial<Receipt> = {}): void => {
    const closed = receipt(changes)
    pending.set(`${closed.requestId}/1`, closed)
    shipper.notify()
  }
  return { shipper, pending, sent, close }
}

vi.mock('../../gpu-node/backoff.ts', async (original) => {
  const real = await original<typeof import('../../gpu-node/backoff.ts')>()
  return { backoffMs: vi.fn(real.backoffMs) }
})
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
  vi.mocked(backoffMs).mockReset()
})

test('a receipt leaves right after the close; what closes then follows a quarter of a second behind it', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  const { shipper, pending, sent, close } = shipping()
  const begin = performance.now()
  for (const ms of [20, 250]) {
    close()
    await vi.advanceTimersByTimeAsync(ms)
    // What is signed and sent takes none of this time.
    while (pending.size > 0) await new Promise((done) => setImmediate(done))
  }
  expect(sent.map(({ at }) => at - begin)).toEqual([20, 270])
  await shipper.stop()
})

test('under load what closes in a quarter of a second shares a segment', async () => {
  const { shipper, pending, sent, close } = shipping()
  const begin = performance.now()
  let closed = 0
  for (; performance.now() - begin < 1_100; closed++) {
    close()
    await sleep(5)
  }
  while (pending.size > 0) await sleep(5)
  await shipper.stop()
  expect(sent.length).toBeLessThanOrEqual((performance.now() - begin) / 250 + 1)
  expect(sent.reduce((sum, { receipts }) => sum + receipts, 0)).toBe(closed)
})

test('a backlog leaves in full segments, one after the other', async () => {
  const { shipper, pending, sent, close } = shipping()
  for (let i = 0; i < 250; i++) close()
  while (pending.size > 0) await sleep(5)
  await shipper.stop()
  expect(sent.map(({ receipts }) => receipts)).toEqual([100, 100, 50])
})

test('a segment is a modest request, however many blocks its receipts name', async () => {
  const { shipper, pending, sent, close } = shipping()
  const prefix = Array.from({ length: 4_000 }, (_, i): [string, number] => [String(i).padEnd(24, '.'), i])
  for (let i = 0; i < 10; i++) close({ prefix })
  while (pending.size > 0) await sleep(5)
  await shipper.stop()
  expect(sent.map(({ receipts }) => receipts)).toEqual([3, 3, 3, 1])
})

test('an edge that names what it was not sent settles none of that', async () => {
  const { shipper, pending, sent, close } = shipping((_, all) => taking([...all.values()]))
  for (let i = 0; i < 150; i++) close()
  while (pending.size > 0) await sleep(5)
  await shipper.stop()
  expect(sent.map(({ receipts }) => receipts)).toEqual([100, 50])
})

test('a receipt that the edge does not settle is put off, and holds up no other', async () => {
  vi.mocked(backoffMs).mockReturnValue(3_600_000)
  const stuck = crypto.randomUUID()
  const { shipper, pending, sent, close } = shipping((all) => taking(all.filter((r) => r.requestId !== stuck)))
  close({ requestId: stuck })
  while (sent.length < 1) await sleep(5)
  // It is put off by now.
  await sleep(50)
  for (let i = 0; i < 2; i++) {
    close()
    while (pending.size > 1) await sleep(5)
  }
  await shipper.stop()
  expect(sent.filter(({ ids }) => ids.includes(stuck))).toHaveLength(1)
})

test('a clock that steps back puts nothing off for longer', async () => {
  vi.mocked(backoffMs).mockReturnValue(500)
  let calls = 0
  const { shipper, pending, close } = shipping((all) => taking(calls++ === 0 ? [] : all))
  close()
  while (calls < 1) await sleep(5)
  const now = Date.now
  const clock = vi.spyOn(Date, 'now').mockImplementation(() => now() - 3_600_000)
  await vi.waitFor(() => expect(pending.size).toBe(0), 10_000).finally(() => clock.mockRestore())
  await shipper.stop()
  const down = shipping(() => new Response('', { status: 500 }))
  down.close()
  const flushed = down.shipper.flush(300)
  vi.spyOn(Date, 'now').mockImplementation(() => now() - 3_600_000)
  expect(await flushed).toBe(false)
  await down.shipper.stop()
})

test('an edge that does not know the node is told who it is', async () => {
  let [calls, unknown] = [0, 0]
  const answer: Answer = (all) => (calls++ < 1 ? new Response('', { status: 404 }) : taking(all))
  const { shipper, pending, close } = shipping(answer, () => unknown++)
  close()
  while (pending.size > 0) await sleep(5)
  await shipper.stop()
  expect([calls, unknown]).toEqual([2, 1])
})

test('a clock that the edge does not accept is no reason to register for each receipt', async () => {
  const calls: Record<string, number> = {}
  const server = createServer((request, response) => {
    request.resume()
    calls[request.url ?? ''] = (calls[request.url ?? ''] ?? 0) + 1
    const registered = { dispatchSecret: 'x'.repeat(40), heartbeatSeconds: 5 }
    if (request.url === PATHS.register) response.end(JSON.stringify(registered))
    else response.writeHead(401).end('{}')
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const edgeUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const identity = { nodeId: 'n', publicKey: 'x', privateKey: pair.privateKey, sign: async () => 'Bearer x' }
  const link: EdgeLink = new EdgeLink({
    ...{ edgeUrl, joinToken: 't', identity, isDraining: () => false },
    ...{ onRegistered: () => shipper.edgeIsBack(), onRemoved: () => {} },
    registration: { address: edgeUrl, model: 'm', chatFormat: 'deepseek_v32', contextTokens: 1 },
    load: () => ({
      ...{ running: 0, waiting: 0, kvPages: 1, kvPagesUsed: 0, prefillTokensPerSecond: 1 },
      ...{ promptTokens: 0, cachedTokens: 0, predictedTokens: 0, predictedRightTokens: 0 },
    }),
  })
  const waits = receipt()
  const shipper = new Shipper({
    ...{ edgeUrl, identity, deadLetterFile: '/dev/null', onUnknown: () => link.forgotten(), onSettled: () => {} },
    journal: { pending: new Map([['k', waits]]), acknowledge: () => {} },
    chain: {
      ...{ unconfirmed: undefined, confirm: async () => {}, restart: async () => {} },
      seal: async (receipts) => JSON.stringify({ nodeId: 'n', link: { chain: 'c', index: 0, previous: '' }, receipts }),
    },
  })
  await link.beat()
  await sleep(2_000)
  await Promise.all([link.stop(), shipper.stop()])
  server.close()
  server.closeAllConnections()
  expect(calls[PATHS.register]).toBeLessThan(5)
  expect(calls[PATHS.receipts]).toBeLessThan(10)
})
