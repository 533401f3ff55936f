// A node that an operator removes: never asked again, refused when it comes back; what it still owes is taken, and its evidence stays.
import { env } from 'cloudflare:workers'
import { beforeAll, beforeEach, expect, test } from 'vitest'
import { inFlight } from '../../edge/fleet.ts'
import { forgetNodes } from '../../edge/live_nodes.ts'
import { signCall } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import { deriveBills } from '../../scripts/admin_evidence.ts'
import {
  type Account,
  admin,
  balanceOf,
  COST,
  call,
  chat,
  flush,
  idOf,
  MODEL,
  openAccount,
  receiptOf,
  registerNode,
  removeNodes,
  send,
  type TestNode,
} from './world.ts'

let account: Account
let node: TestNode
beforeAll(async () => {
  account = await openAccount(1e9)
})
beforeEach(async () => {
  await removeNodes()
  node = await registerNode('good')
})

const LOAD = { running: 0, waiting: 0, kvPages: 9, kvPagesUsed: 2, prefillTokensPerSecond: 500 }

const remove = async (id: string, body: object = {}) => {
  const response = await admin('POST', `/nodes/${encodeURIComponent(id)}/remove`, body)
  return { status: response.status, body: await response.json<Record<string, never>>() }
}
const beat = async () => {
  const body = utf8(JSON.stringify({ nodeId: node.id, draining: false, load: LOAD }))
  const authorization = await signCall(node.privateKey, 'EdDSA', node.id, 'edge', body)
  const response = await call('/internal/heartbeat', { method: 'POST', headers: { authorization }, body })
  return [response.status, (await response.json<{ error?: { code: string } }>()).error?.code]
}
const join = async (publicKey: string | null, nodeId = node.id) => {
  const response = await call('/internal/register', {
    method: 'POST',
    headers: { authorization: `Bearer ${env.JOIN_TOKEN}` },
    body: JSON.stringify({
      ...{ nodeId, address: env.NODE_ADDRESSES.good, publicKey, model: MODEL },
      ...{ chatFormat: 'deepseek_v32', contextTokens: 4096, load: LOAD },
    }),
  })
  forgetNodes()
  return [response.status, (await response.json<{ error?: { code: string } }>()).error?.code]
}
const keyOfRow = () => env.DB.prepare("SELECT public_key FROM nodes WHERE id = 'good'").first<string>('public_key')
const listed = async () =>
  (await (await admin('GET', '/nodes')).json<{ data: { id: string }[] }>()).data.map(({ id }) => id)
const live = async () => (await (await call('/healthz')).json<{ nodes: number }>()).nodes
const contexts = async () =>
  (
    await (
      await call('/v1/models', { headers: { authorization: `Bearer ${account.key}` } })
    ).json<{
      data: { id: string; context_length: number | null }[]
    }>()
  ).data.find(({ id }) => id === MODEL)?.context_length

test('it is forgotten by router, listing and model list, and refused with its old credential, token or not', async () => {
  expect((await chat(account.key)).status).toBe(200)
  expect(await contexts()).toBe(4096)
  const done = await remove('good')
  expect(done).toEqual({ status: 200, body: { id: 'good', removedAt: expect.any(Number) } })
  expect((await chat(account.key)).status).toBe(503)
  expect([await live(), await listed(), await contexts()]).toEqual([0, [], null])
  expect(await beat()).toEqual([410, 'node_removed'])
  expect(await join(await keyOfRow())).toEqual([410, 'node_removed'])
  expect(await live()).toBe(0)
})

test('nobody else gets its name; its machine may join under another one', async () => {
  await remove('good')
  expect(await join('B'.repeat(43))).toEqual([409, 'conflict'])
  expect(await join('B'.repeat(43), 'good-again')).toEqual([200, undefined])
  expect(await listed()).toEqual(['good-again'])
})

test('what it owes settles as ever, and its bills are derived from its evidence', async () => {
  const before = Number(await balanceOf(account))
  const id = idOf(await chat(account.key))
  await remove('good')
  const late = receiptOf(node, account, id)
  expect(await send(node, [late])).toEqual({ acknowledged: [{ requestId: id, attempt: 1 }], refused: [] })
  await flush(account)
  expect(Number(await balanceOf(account))).toBeCloseTo(before - COST / 1e9, 9)
  const ask = async <T>(method: string, path: string, body?: object) =>
    (await admin(method, path, body)).json() as Promise<T>
  const report = await deriveBills(ask, Date.now(), account.id)
  expect(report.findings).toEqual([])
  expect(report.lines.some((line) => line.includes(id))).toBe(true)
})

test('a second time it says the same; a node that is not known is a 404; each call is on record', async () => {
  const first = await remove('good')
  expect(await remove('good')).toEqual(first)
  expect(await remove('good', { force: true })).toEqual(first)
  expect((await remove('nobody')).status).toBe(404)
  const { data } = await (await admin('GET', '/log')).json<{ data: { action: string; phase: string }[] }>()
  const mine = data.filter(({ action }) => action === 'POST /nodes/good/remove').slice(0, 2)
  expect(mine.map(({ phase }) => phase)).toEqual(['done', 'asked'])
})

test('with runs under way it takes force; what a silent one said of its load is no reason', async () => {
  await registerNode('good', 2)
  const refused = await remove('good')
  expect(refused).toMatchObject({ status: 409, body: { error: { message: expect.stringContaining('2 runs') } } })
  expect(await listed()).toEqual(['good'])
  expect((await remove('good', { force: true })).status).toBe(200)
  await registerNode('other', 1)
  await env.DB.prepare("UPDATE nodes SET heartbeat_at = 1 WHERE id = 'other'").run()
  expect((await remove('other')).status).toBe(200)
})

test('runs that this isolate sent there since its heartbeat count', async () => {
  const flight = inFlight.begin('good', Date.now(), 0)
  expect((await remove('good')).status).toBe(409)
  flight.ended()
  expect((await remove('good')).status).toBe(200)
})
