// How nodes come, speak and go: registration again, heartbeats that only the node itself may send, what of them is seen outside.
import { env } from 'cloudflare:workers'
import { beforeAll, beforeEach, expect, test } from 'vitest'
import { forgetNodes } from '../../edge/live_nodes.ts'
import { signCall } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import { type Account, call, chat, MODEL, openAccount, registerNode, removeNodes, type TestNode } from './world.ts'

let account: Account
let node: TestNode
beforeAll(async () => {
  account = await openAccount(1e9)
})
beforeEach(async () => {
  await removeNodes()
  node = await registerNode('good')
})

const LOAD = { running: 3, waiting: 1, kvPages: 9, kvPagesUsed: 2, prefillTokensPerSecond: 500 }

const beat = async (draining: boolean, by: TestNode = node): Promise<number> => {
  const body = utf8(JSON.stringify({ nodeId: 'good', draining, load: LOAD }))
  const authorization = await signCall(by.privateKey, 'EdDSA', by.id, 'edge', body)
  const { status } = await call('/internal/heartbeat', { method: 'POST', headers: { authorization }, body })
  forgetNodes()
  return status
}
const rowOf = () => env.DB.prepare("SELECT draining, running, heartbeat_at AS at FROM nodes WHERE id = 'good'").first()
const live = async () => (await (await call('/healthz')).json<{ nodes: number }>()).nodes

test('a node says by its heartbeat that it drains, and that it is back', async () => {
  expect(await live()).toBe(1)
  expect(await beat(true)).toBe(200)
  expect(await rowOf()).toMatchObject({ draining: 1, running: 3 })
  expect((await chat(account.key)).status).toBe(503)
  expect(await live()).toBe(0)
  expect(await beat(false)).toBe(200)
  expect((await chat(account.key)).status).toBe(200)
  expect(await live()).toBe(1)
})

test('nobody else sends the heartbeat of a node', async () => {
  const other = await registerNode('other')
  const before = await rowOf()
  expect(await beat(true, other)).toBe(401)
  const body = JSON.stringify({ nodeId: 'good', draining: true, load: LOAD })
  expect((await call('/internal/heartbeat', { method: 'POST', body })).status).toBe(401)
  expect(await rowOf()).toEqual(before)
})

test('a node that drained and registers again is asked again, at its new address', async () => {
  const row = await env.DB.prepare("SELECT public_key FROM nodes WHERE id = 'good'").first<string>('public_key')
  await env.DB.prepare("UPDATE nodes SET draining = 1, address = 'http://127.0.0.1:9'").run()
  const joined = await call('/internal/register', {
    method: 'POST',
    headers: { authorization: `Bearer ${env.JOIN_TOKEN}` },
    body: JSON.stringify({
      ...{ nodeId: 'good', address: env.NODE_ADDRESSES.good, publicKey: row, model: MODEL },
      ...{ chatFormat: 'deepseek_v32', contextTokens: 4096, load: LOAD },
    }),
  })
  expect(joined.status).toBe(200)
  forgetNodes()
  expect((await chat(account.key)).status).toBe(200)
})
