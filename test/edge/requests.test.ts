// Requests at the edge: keys, errors, routing, retries, streams that break.
import { env } from 'cloudflare:workers'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { lookup } from '../../edge/prefix.ts'
import {
  type Account,
  admin,
  balanceOf,
  call,
  chat,
  MODEL,
  objectOf,
  openAccount,
  registerNode,
  removeNodes,
} from './world.ts'

let account: Account
beforeAll(async () => {
  account = await openAccount(1_000_000_000)
})
beforeEach(() => registerNode('good'))
afterEach(removeNodes)

const codeOf = async (response: Response): Promise<[number, string]> => {
  const { error } = await response.json<{ error: { code: string; message: string; type: string } }>()
  expect(error.message).toBeTruthy()
  expect(error.type).toBeTruthy()
  return [response.status, error.code]
}

test('an answer carries request id and stages', async () => {
  const response = await chat(account.key)
  expect(await response.json()).toEqual({ whole: 1 })
  expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/)
  for (const stage of ['parse', 'admit', 'lookup', 'dispatch'])
    expect(response.headers.get('server-timing')).toContain(stage)
})

test('forged, foreign, revoked and expired keys are refused', async () => {
  const refused = [401, 'invalid_api_key']
  const last = account.key.at(-1) === '0' ? '1' : '0'
  expect(await codeOf(await chat(account.key.slice(0, -1) + last))).toEqual(refused)
  expect(await codeOf(await chat('sk-nonsense'))).toEqual(refused)
  expect(await codeOf(await call('/v1/models'))).toEqual(refused)
  const made = await (await admin('POST', '/keys', { account: account.id, name: 'b' })).json<{
    id: string
    key: string
  }>()
  expect((await chat(made.key)).status).toBe(200)
  await admin('POST', `/keys/${made.id}/revoke`)
  expect(await codeOf(await chat(made.key))).toEqual(refused)
  const past = { account: account.id, name: 'c', expiresAt: Date.now() - 1 }
  const expired = await (await admin('POST', '/keys', past)).json<{ key: string }>()
  expect(await codeOf(await chat(expired.key))).toEqual(refused)
})

test.each([
  ['not JSON', '{', 400, 'malformed_request'],
  ['not UTF-8', new Uint8Array([0x7b, 0xff]), 400, 'malformed_request'],
  ['no object', '[]', 400, 'invalid_request'],
  [
    'bad parameter',
    JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'x' }], top_p: 2 }),
    422,
    'invalid_parameter',
  ],
  ['unknown model', JSON.stringify({ model: 'x', messages: [{ role: 'user', content: 'x' }] }), 404, 'model_not_found'],
  ['too large', `"${'x'.repeat(8 * 1024 * 1024)}"`, 413, 'request_too_large'],
])('%s', async (_name, body, status, code) => {
  const headers = { authorization: `Bearer ${account.key}` }
  expect(await codeOf(await call('/chat/completions', { method: 'POST', headers, body }))).toEqual([status, code])
})

test('wrong path, wrong method', async () => {
  expect(await codeOf(await call('/v2/nothing'))).toEqual([404, 'not_found'])
  const get = await call('/v1/chat/completions')
  expect(get.headers.get('allow')).toBe('POST, OPTIONS')
  expect(await codeOf(get)).toEqual([405, 'method_not_allowed'])
  for (const path of [
    '/v1/models',
    '/models/sparrow',
    '/v1/usage',
    '/v1/usage/x/prefix',
    '/healthz',
    '/dashboard/app.js',
  ]) {
    const post = await call(path, { method: 'POST', body: '{}' })
    expect(post.headers.get('allow')).toBe('GET, HEAD, OPTIONS')
    expect(await codeOf(post)).toEqual([405, 'method_not_allowed'])
  }
})

test('no node: 503 with retry-after, and the hold is released', async () => {
  await removeNodes()
  const before = await balanceOf(account)
  const response = await chat(account.key)
  expect(response.headers.get('retry-after')).toBe('1')
  expect(await codeOf(response)).toEqual([503, 'no_node'])
  expect(await balanceOf(account)).toBe(before)
})

test('a look-up that fails is a 503 to try again, and the hold is released', async () => {
  const before = await balanceOf(account)
  await env.DB.prepare('ALTER TABLE nodes RENAME TO nodes_away').run()
  try {
    const response = await chat(account.key)
    expect(response.headers.get('retry-after')).toBeTruthy()
    expect(await codeOf(response)).toEqual([503, 'no_node'])
  } finally {
    await env.DB.prepare('ALTER TABLE nodes_away RENAME TO nodes').run()
  }
  expect(await balanceOf(account)).toBe(before)
})

test('an account that has never seen the prices, and no database: a 503 to try again, and no hold', async () => {
  const fresh = await openAccount(1e9)
  await env.DB.prepare('ALTER TABLE prices RENAME TO prices_away').run()
  try {
    const response = await chat(fresh.key)
    expect(response.headers.get('retry-after')).toBeTruthy()
    expect(await codeOf(response)).toEqual([503, 'no_node'])
  } finally {
    await env.DB.prepare('ALTER TABLE prices_away RENAME TO prices').run()
  }
  expect(await objectOf(fresh).balance()).toMatchObject({ balanceNano: 1e9, heldNano: 0 })
})

test('before the first token a failing node is passed over', async () => {
  await registerNode('good', 50)
  await registerNode('down')
  await registerNode('draining')
  for (let i = 0; i < 3; i++) expect((await chat(account.key)).status).toBe(200)
})

test('an answer that does not come from the node that was asked is not relayed', async () => {
  await removeNodes()
  await registerNode('impostor')
  expect((await chat(account.key)).status).toBe(503)
})

test('what every node would refuse is not tried again', async () => {
  await registerNode('good', 50)
  await registerNode('full')
  expect(await codeOf(await chat(account.key))).toEqual([413, 'context_length_exceeded'])
})

test('a prompt too long for one node goes to one with a longer context; while that is busy, the client comes again', async () => {
  await registerNode('good', 50)
  await registerNode('full', 0, { contextTokens: 1024 })
  expect((await chat(account.key)).status).toBe(200)
  await removeNodes()
  await registerNode('draining')
  await registerNode('full', 50, { contextTokens: 1024 })
  expect(await codeOf(await chat(account.key))).toEqual([503, 'node_draining'])
})

test('a node behind a proxy is reached below the path of its address', async () => {
  await removeNodes()
  await registerNode('proxied')
  expect((await chat(account.key)).status).toBe(200)
})

test('a stale or draining node gets nothing', async () => {
  await env.DB.prepare('UPDATE nodes SET heartbeat_at = ?')
    .bind(Date.now() - 60_000)
    .run()
  expect((await chat(account.key)).status).toBe(503)
  await env.DB.prepare('UPDATE nodes SET heartbeat_at = ?, draining = 1').bind(Date.now()).run()
  expect((await chat(account.key)).status).toBe(503)
})

test('a stream passes through byte for byte', async () => {
  const response = await chat(account.key, { stream: true })
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
  expect(response.headers.get('x-should-retry')).toBe('false')
  expect(await response.text()).toBe('data: {"whole":1}\n\ndata: [DONE]\n\n')
})

test('a stream that breaks ends with an error frame and costs nothing', async () => {
  await removeNodes()
  await registerNode('breaks')
  const before = await balanceOf(account)
  const text = await (await chat(account.key, { stream: true })).text()
  const [first, last] = text.trim().split('\n\n')
  expect(first).toBe('data: {"first":1}')
  expect(JSON.parse(last?.replace('data: ', '') ?? '')).toMatchObject({ error: { code: 'stream_interrupted' } })
  expect(await balanceOf(account)).toBe(before)
})

test('a whole answer that breaks becomes a status, and is not charged', async () => {
  await removeNodes()
  await registerNode('breaks')
  expect(await codeOf(await chat(account.key))).toEqual([502, 'node_failed'])
})

test('the longest prefix hit of each node comes from one statement', async () => {
  await registerNode('other')
  const insert = env.DB.prepare('INSERT INTO prefix_blocks (key, node_id, tokens, seen_at) VALUES (?, ?, ?, 0)')
  await env.DB.batch([insert.bind('k1', 'good', 64), insert.bind('k2', 'good', 128), insert.bind('k1', 'other', 64)])
  const many = Array.from({ length: 4000 }, (_, i) => `x${i}`)
  const found = await lookup(env.DB, { model: MODEL, chatFormat: 'deepseek_v32' }, ['k1', 'k2', ...many])
  expect(Object.fromEntries(found.map(({ id, hitTokens }) => [id, hitTokens]))).toEqual({ good: 128, other: 64 })
})

test('models are listed and found', async () => {
  const headers = { authorization: `Bearer ${account.key}` }
  const { object, data } = await (await call('/v1/models', { headers })).json<{
    object: string
    data: { id: string }[]
  }>()
  // The model, and the names that stand for what most nodes serve.
  expect([object, data.map(({ id }) => id)]).toEqual(['list', [MODEL, 'deepseek-chat', 'deepseek-reasoner']])
  for (const { id } of data) expect(await (await call(`/models/${id}`, { headers })).json()).toMatchObject({ id })
  await admin('PUT', '/prices', { model: 'maker/model', hitNano: 1, missNano: 1, outputNano: 1 })
  expect((await call('/v1/models/maker/model', { headers })).status).toBe(200)
  expect(await codeOf(await call('/models/none', { headers }))).toEqual([404, 'model_not_found'])
})
