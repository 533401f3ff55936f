// Faults at the edge: storage that fails or is slow, an object that is evicted, receipts that are forged, altered, replayed or late,
// nodes that lie, clocks that are wrong. What dies for real is in test/e2e/faults.test.ts.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { SignJWT } from 'jose'
import { beforeEach, expect, test } from 'vitest'
import type { Env } from '../../edge/env.ts'
import worker from '../../edge/index.ts'
import { signReceipt } from '../../schema/receipt.ts'
import { bodyHash, signCall } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import type { Receipt, SegmentAck, SignedReceipt } from '../../schema/wire.ts'
import {
  type Account,
  admin,
  alarm,
  asCustomer,
  COST,
  call,
  chat,
  flush,
  MODEL,
  newLink,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  removeNodes,
  send,
  type TestNode,
} from './world.ts'

const CREDIT = 1_000_000
let node: TestNode
let account: Account
beforeEach(async () => {
  await removeNodes()
  node = await registerNode('good')
  account = await openAccount(CREDIT)
})

const run = async (): Promise<string> => (await chat(account.key)).headers.get('x-request-id') ?? ''
const balance = async () => (await objectOf(account).balance()).balanceNano

const deliver = async (receipts: readonly SignedReceipt[], authorization?: string): Promise<Response> => {
  const body = utf8(JSON.stringify({ nodeId: node.id, link: newLink(), receipts }))
  const signed = authorization ?? (await signCall(node.privateKey, 'EdDSA', node.id, 'edge', body))
  return call('/internal/receipts', { method: 'POST', headers: { authorization: signed }, body })
}

const evict = async (): Promise<void> => {
  await runInDurableObject(objectOf(account), (_object, state) => state.abort('evicted by the test')).catch(() => {})
}

test('the account object is evicted with a hold open: the hold stands, and its receipt settles', async () => {
  const id = await run()
  const { heldNano } = await objectOf(account).balance()
  await evict()
  expect((await objectOf(account).balance()).heldNano).toBe(heldNano)
  await evict()
  await send(node, [receiptOf(node, account, id)])
  await evict()
  expect(await objectOf(account).balance()).toEqual({ balanceNano: CREDIT - COST, heldNano: 0 })
})

test('D1 fails while rows wait: settlement goes on, the rows arrive when it is back', async () => {
  const id = await run()
  await env.DB.prepare('ALTER TABLE usage RENAME TO usage_away').run()
  await send(node, [receiptOf(node, account, id)])
  await alarm(account)
  expect(await balance()).toBe(CREDIT - COST)
  await env.DB.prepare('ALTER TABLE usage_away RENAME TO usage').run()
  await flush(account)
  const { data } = await (await admin('GET', `/ledger?account=${account.id}`)).json<{ data: object[] }>()
  expect(data).toHaveLength(2)
})

test('D1 is slow: the request waits, and is answered', async () => {
  const slow = async <T>(work: () => Promise<T>): Promise<T> => {
    await new Promise((done) => setTimeout(done, 400))
    return work()
  }
  const real = (env as unknown as Env).DB
  const session = () => ({
    prepare: (sql: string) => ({
      bind: (...values: unknown[]) => ({
        all: () =>
          slow(() =>
            real
              .prepare(sql)
              .bind(...values)
              .all(),
          ),
      }),
    }),
  })
  const DB = new Proxy(real, {
    get: (target, name) => (name === 'withSession' ? session : Reflect.get(target, name).bind(target)),
  })
  const waiting: Promise<unknown>[] = []
  const context = { waitUntil: (p: Promise<unknown>) => waiting.push(p), passThroughOnException: () => {}, props: {} }
  const request = new Request('http://edge.test/v1/chat/completions', {
    ...{ method: 'POST', headers: { authorization: `Bearer ${account.key}` } },
    body: JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 10 }),
  })
  const slowEnv = { ...(env as unknown as Env), DB }
  const response = await worker.fetch(request, slowEnv, context as unknown as ExecutionContext)
  expect(response.status).toBe(200)
  const lookup = /lookup;dur=([\d.]+)/.exec(response.headers.get('server-timing') ?? '')?.[1]
  expect(Number(lookup)).toBeGreaterThanOrEqual(390)
})

test('a forged or altered receipt is refused, and nothing is charged', async () => {
  const id = await run()
  const other = await registerNode('other')
  const receipt = receiptOf(node, account, id)
  const forged = await signReceipt(other.privateKey, receipt)
  const honest = await signReceipt(node.privateKey, receipt)
  for (const signed of [forged, { ...honest, receipt: { ...receipt, outputTokens: 4 } }]) {
    const ack = await (await deliver([signed])).json<SegmentAck>()
    expect(ack.refused).toEqual([{ requestId: id, attempt: 1, reason: 'its signature is wrong' }])
  }
  expect(await balance()).toBe(CREDIT)
})

test('a replayed segment changes nothing, at once or after the row has reached D1', async () => {
  const id = await run()
  const signed = [await signReceipt(node.privateKey, receiptOf(node, account, id))]
  for (let i = 0; i < 3; i++) {
    expect((await (await deliver(signed)).json<SegmentAck>()).acknowledged).toHaveLength(1)
    await flush(account)
  }
  expect(await balance()).toBe(CREDIT - COST)
})

test('a segment whose signature has expired is refused whole: it is signed anew and sent again', async () => {
  const signed = [await signReceipt(node.privateKey, receiptOf(node, account, await run()))]
  const body = utf8(JSON.stringify({ nodeId: node.id, link: newLink(), receipts: signed }))
  const now = Math.floor(Date.now() / 1000)
  const stale = await new SignJWT({ bsh: await bodyHash(body) })
    .setProtectedHeader({ alg: 'EdDSA' })
    .setIssuer(node.id)
    .setAudience('edge')
    .setIssuedAt(now - 300)
    .setExpirationTime(now - 240)
    .sign(node.privateKey)
  expect((await deliver(signed, `Bearer ${stale}`)).status).toBe(401)
  expect(await balance()).toBe(CREDIT)
  expect((await deliver(signed)).status).toBe(200)
  expect(await balance()).toBe(CREDIT - COST)
})

const lies: [string, (receipt: Receipt, stranger: Account) => Partial<Receipt>, string][] = [
  ['more than was held', () => ({ outputTokens: 11_000 }), 'it claims more than was held'],
  [
    'more cached than the prompt has',
    () => ({ hitTokens: 6400 }),
    'it counts more prompt tokens than the prompt has bytes',
  ],
  ['another account', (_, stranger) => ({ accountId: stranger.id }), 'no such request was admitted'],
  ['another key', (_, stranger) => ({ keyId: stranger.keyId }), 'key or model differs from the admitted request'],
  ['an attempt that was never made', () => ({ attempt: 2 }), 'there was no such attempt'],
  ['a request that was never made', () => ({ requestId: crypto.randomUUID() }), 'no such request was admitted'],
  ['reasoning beyond its output', () => ({ reasoningTokens: 6 }), 'reasoningTokens exceeds outputTokens'],
]
test.each(lies)('a node lies about %s: refused, and nothing is charged', async (_name, lie, reason) => {
  const stranger = await openAccount(CREDIT)
  const receipt = receiptOf(node, account, await run())
  const ack = await send(node, [{ ...receipt, ...lie(receipt, stranger) }])
  expect(ack.refused.map((entry) => entry.reason)).toEqual([reason])
  expect([await balance(), (await objectOf(stranger).balance()).balanceNano]).toEqual([CREDIT, CREDIT])
  // The truth, told later, still settles.
  await send(node, [receipt])
  expect(await balance()).toBe(CREDIT - COST)
})

test('negative or fractional counts are no receipt: the segment is refused', async () => {
  const id = await run()
  for (const lie of [{ outputTokens: -5 }, { missTokens: 0.5 }, { hitTokens: -64 }]) {
    const receipt = { ...receiptOf(node, account, id), ...lie }
    expect((await deliver([await signReceipt(node.privateKey, receipt)])).status).toBe(400)
  }
  expect(await balance()).toBe(CREDIT)
})

test("a node's clock is years off: the charge is the same, and dated by the edge", async () => {
  const id = await run()
  const times = { openedAt: 4e12, firstTokenAt: 4e12, closedAt: 4e12 }
  await send(node, [receiptOf(node, account, id, times)])
  await flush(account)
  const usage = await (await asCustomer(account, `/v1/usage/${id}`)).json<{ settled_at: number; charge_nano: number }>()
  expect(usage.charge_nano).toBe(COST)
  expect(Math.abs(usage.settled_at - Date.now())).toBeLessThan(60_000)
})
