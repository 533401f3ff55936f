// Secrets that are replaced: what the one before made is taken while it stands beside the new one, and refused without it; what is made
// is made with the new one.
import { env } from 'cloudflare:workers'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import type { Env } from '../../edge/env.ts'
import { evidenceKey, type KeptSegment, keepSegment, sealerOf } from '../../edge/evidence.ts'
import worker from '../../edge/index.ts'
import { forgetNodes } from '../../edge/live_nodes.ts'
import { dispatchSecret } from '../../edge/node_client.ts'
import { signAdminCall } from '../../schema/admin_call.ts'
import type { Terms } from '../../schema/bill.ts'
import { signReceipt } from '../../schema/receipt.ts'
import { signCall, verifyToken } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import type { Segment } from '../../schema/wire.ts'
import { deriveBills, resealAll } from '../../scripts/admin_evidence.ts'
import {
  type Account,
  balanceOf,
  flush,
  idOf,
  MODEL,
  newLink,
  openAccount,
  receiptOf,
  registerNode,
  removeNodes,
  type TestNode,
} from './world.ts'

const fresh = (name: string): string => `test-only-new-${name}-`.padEnd(40, 'y')
const before = env as unknown as Env
const after: Env = {
  ...before,
  ...{ SPARROW_SECRET: fresh('sparrow'), ADMIN_SECRET: fresh('admin'), JOIN_TOKEN: fresh('join') },
}
const between: Env = {
  ...after,
  ...{ SPARROW_SECRET_PREVIOUS: before.SPARROW_SECRET, ADMIN_SECRET_PREVIOUS: before.ADMIN_SECRET },
  JOIN_TOKEN_PREVIOUS: before.JOIN_TOKEN,
}

/** Ends when all is done that the Worker does behind an answer. */
const at = async (by: Env, path: string, init?: RequestInit): Promise<Response> => {
  const behind: Promise<unknown>[] = []
  const context = { waitUntil: (work: Promise<unknown>) => void behind.push(work), passThroughOnException: () => {} }
  const request = new Request(`http://edge.test${path}`, init)
  const response = await worker.fetch(request, by, { ...context, props: {} } as unknown as ExecutionContext)
  const text = await response.text()
  await Promise.all(behind)
  return new Response(text, response)
}
const chatAt = (by: Env, key: string, headers: Record<string, string> = {}): Promise<Response> =>
  at(by, '/v1/chat/completions', {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, ...headers },
    body: JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 10 }),
  })
const adminAt = async (by: Env, secret: string, method: string, path: string, body?: object): Promise<Response> => {
  const text = body ? JSON.stringify(body) : ''
  const signed = { method, path: `/admin/v1${path}`, idempotencyKey: crypto.randomUUID(), body: utf8(text) }
  const authorization = await signAdminCall(secret, signed)
  const headers = { authorization, 'idempotency-key': signed.idempotencyKey }
  return at(by, signed.path, { method, headers, ...(body ? { body: text } : {}) })
}
const json = async <T>(response: Promise<Response>): Promise<T> => (await response).json<T>()

const written: string[] = []
let account: Account
let node: TestNode
beforeAll(async () => {
  for (const level of ['log', 'info', 'warn', 'error', 'debug'] as const)
    vi.spyOn(console, level).mockImplementation((...parts: unknown[]) => void written.push(parts.map(String).join(' ')))
  account = await openAccount(1e9)
})
beforeEach(async () => {
  await removeNodes()
  node = await registerNode('good')
})
afterEach(() => {
  vi.mocked(fetch).mockRestore?.()
})
afterAll(() => {
  for (const secret of Object.values(between).filter((value) => typeof value === 'string' && value.length >= 32))
    expect(written.join('\n')).not.toContain(secret)
})

test('an old key works beside the secret before it; a new one is signed by the new secret; neither works without its own', async () => {
  const made = await json<{ key: string }>(
    adminAt(between, between.ADMIN_SECRET, 'POST', '/keys', { account: account.id, name: 'new' }),
  )
  const statuses = async (key: string) =>
    [await chatAt(before, key), await chatAt(between, key), await chatAt(after, key)].map(({ status }) => status)
  expect(await statuses(account.key)).toEqual([200, 200, 401])
  expect(await statuses(made.key)).toEqual([401, 200, 200])
  const page = { headers: { 'x-api-key': account.key } }
  for (const path of ['/v1/models', '/user/balance', '/v1/usage'])
    expect([(await at(between, path, page)).status, (await at(after, path, page)).status]).toEqual([200, 401])
})

test('a key that a customer gets for an old one is signed by the new secret, and the old one ends as told', async () => {
  const own = await openAccount(1e9)
  const path = `/keys/${own.keyId}/rotate`
  const { key } = await json<{ key: string }>(
    adminAt(between, between.ADMIN_SECRET, 'POST', path, { overlapSeconds: 0 }),
  )
  expect((await chatAt(between, own.key)).status).toBe(401)
  expect((await chatAt(after, key)).status).toBe(200)
})

test('a forged key costs no look-up while two secrets count', async () => {
  const watch = (name: string) =>
    new Proxy({}, { get: (_target, property) => Promise.reject(new Error(`${name}.${String(property)}`)) })
  const watched = { ...between, DB: watch('DB'), ACCOUNT: watch('ACCOUNT') } as unknown as Env
  for (const key of [account.key.slice(0, -1) + (account.key.endsWith('0') ? '1' : '0'), `sk-${'0'.repeat(64)}`])
    expect((await chatAt(watched, key)).status).toBe(401)
})

test('what was sent under an Idempotency-Key before is replayed, not run and charged again', async () => {
  const headers = { 'idempotency-key': crypto.randomUUID() }
  const first = await chatAt(before, account.key, headers)
  const again = await chatAt(between, account.key, headers)
  expect([idOf(again), again.headers.get('idempotent-replayed')]).toEqual([idOf(first), 'true'])
  const since = { 'idempotency-key': crypto.randomUUID() }
  const new1 = await chatAt(between, account.key, since)
  expect(idOf(await chatAt(between, account.key, since))).toBe(idOf(new1))
})

test('nor is it run again by an isolate that has not heard of the new secret yet, whichever of the two ran it', async () => {
  const headers = { 'idempotency-key': crypto.randomUUID() }
  const first = await chatAt(between, account.key, headers)
  for (const by of [before, between, before]) expect(idOf(await chatAt(by, account.key, headers))).toBe(idOf(first))
})

test('operators and joining nodes are taken by either secret, and by the new one alone in the end', async () => {
  const asOperator = async (by: Env, secret: string) => (await adminAt(by, secret, 'GET', '/accounts')).status
  const join = async (by: Env, token: string) => {
    const headers = { authorization: `Bearer ${token}` }
    return (await at(by, '/internal/register', { method: 'POST', headers, body: '{}' })).status
  }
  // 400: the token was right.
  for (const [by, old, now] of [
    [before, [200, 400], [401, 401]],
    [between, [200, 400], [200, 400]],
    [after, [401, 401], [200, 400]],
  ] as const) {
    expect([await asOperator(by, before.ADMIN_SECRET), await join(by, before.JOIN_TOKEN)]).toEqual(old)
    expect([await asOperator(by, after.ADMIN_SECRET), await join(by, after.JOIN_TOKEN)]).toEqual(now)
  }
})

/** The node's little server takes what is signed with `secret`, and says 401 to all else. */
const knowing = (secret: string) => {
  const real = globalThis.fetch
  const asked: boolean[] = []
  vi.spyOn(globalThis, 'fetch').mockImplementation(async (input, init) => {
    const authorization = new Headers(init?.headers).get('authorization')
    const token = await verifyToken(utf8(dispatchSecret(secret, node.id)), 'HS256', node.id, authorization)
    asked.push(token.ok)
    return token.ok
      ? real(input, init)
      : Response.json({ error: { code: 'invalid_signature', message: 'no' } }, { status: 401 })
  })
  return asked
}

test('a node that knows the secret before is asked with it, until a heartbeat has told it the new one', async () => {
  const asked = knowing(before.SPARROW_SECRET)
  expect((await chatAt(between, account.key)).status).toBe(200)
  expect(asked).toEqual([false, true])
  vi.mocked(fetch).mockRestore()
  const load = { running: 0, waiting: 0, kvPages: 1, kvPagesUsed: 0, prefillTokensPerSecond: 1000 }
  const body = utf8(JSON.stringify({ nodeId: node.id, draining: false, load }))
  const authorization = await signCall(node.privateKey, 'EdDSA', node.id, 'edge', body)
  const told = await json<object>(
    at(between, '/internal/heartbeat', { method: 'POST', headers: { authorization }, body }),
  )
  expect(told).toEqual({ ok: true, dispatchSecret: dispatchSecret(after.SPARROW_SECRET, node.id) })
  const since = knowing(after.SPARROW_SECRET)
  forgetNodes()
  expect((await chatAt(between, account.key)).status).toBe(200)
  expect(since).toEqual([true])
})

test('evidence sealed with the secret before counts beside it, and after it once it was sealed anew; what was altered is not', async () => {
  const links = [newLink(), newLink()]
  for (const link of links) {
    const id = idOf(await chatAt(before, account.key))
    const signed = await signReceipt(node.privateKey, receiptOf(node, account, id))
    const body = utf8(JSON.stringify({ nodeId: node.id, link, receipts: [signed] }))
    const authorization = await signCall(node.privateKey, 'EdDSA', node.id, 'edge', body)
    expect((await at(before, '/internal/receipts', { method: 'POST', headers: { authorization }, body })).status).toBe(
      200,
    )
  }
  await flush(account)
  const asking =
    (by: Env) =>
    <T>(method: string, path: string, body?: object): Promise<T> =>
      json<T>(adminAt(by, by.ADMIN_SECRET, method, path, body))
  const kinds = async (by: Env) => (await deriveBills(asking(by), Date.now())).findings.map(({ kind }) => kind)
  const unsealed = "terms do not bear the edge's seal"
  expect([await kinds(between), await kinds(after)]).toEqual([[], [unsealed, unsealed]])
  const place = evidenceKey(node.id, links[1]?.chain ?? '', 0)
  const kept = (await (await before.EVIDENCE.get(place))?.json()) as KeptSegment
  await before.EVIDENCE.put(place, JSON.stringify({ ...kept, terms: [] }))
  const sum = { segments: 2, refused: 1 }
  expect(await resealAll(asking(between))).toEqual({ ok: false, ...sum, resealed: 1 })
  await before.EVIDENCE.put(place, JSON.stringify(kept))
  expect(await resealAll(asking(between))).toEqual({ ok: true, segments: 2, refused: 0, resealed: 1 })
  expect(await resealAll(asking(between))).toEqual({ ok: true, segments: 2, refused: 0, resealed: 0 })
  expect([await kinds(between), await kinds(after)]).toEqual([[], []])
  expect(Number(await balanceOf(account))).toBeGreaterThan(0)
})

test('what is added to a segment that the secret before sealed is sealed with the new one; to what bears neither seal nothing is', async () => {
  const link = newLink()
  const segment: Segment = { nodeId: node.id, link, receipts: [] }
  const place = evidenceKey(node.id, link.chain, link.index)
  const keep = async (by: Env, ...ids: string[]) => {
    const terms = ids.map((requestId) => ({ requestId }) as Terms)
    return (await keepSegment(by, segment, JSON.stringify(segment), { terms, unbilled: [] }, [])).ok
  }
  const kept = async () => (await (await before.EVIDENCE.get(place))?.json()) as KeptSegment
  expect([await keep(before, 'a'), await keep(between, 'a', 'b')]).toEqual([true, true])
  expect(sealerOf(between, place, await kept())).toBe(after.SPARROW_SECRET)
  const altered = { ...(await kept()), terms: [{ requestId: 'forged' }] }
  await before.EVIDENCE.put(place, JSON.stringify(altered))
  expect(await keep(between, 'a', 'b')).toBe(false)
  expect(await kept()).toEqual(altered)
})

test('a secret before that is too short is told by its name alone, and nothing is answered', async () => {
  for (const name of ['SPARROW_SECRET_PREVIOUS', 'ADMIN_SECRET_PREVIOUS', 'JOIN_TOKEN_PREVIOUS'])
    for (const value of ['', 'not-long-enough']) {
      expect((await chatAt({ ...after, [name]: value }, account.key)).status).toBe(500)
      expect(JSON.parse(written.at(-1) ?? '')).toMatchObject({ fault: `${name} must have at least 32 characters` })
    }
  expect(written.join('\n')).not.toContain('not-long-enough')
})
