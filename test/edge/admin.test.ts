// The admin API: signed, idempotent, typed errors; and who may join as a node.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { SignJWT } from 'jose'
import { afterEach, expect, test, vi } from 'vitest'
import type { AccountObject } from '../../edge/account.ts'
import { TOPPED_UP } from '../../edge/admin/mutations.ts'
import { type Env, environmentFault } from '../../edge/env.ts'
import { signAdminCall } from '../../schema/admin_call.ts'
import { PRICE_NOTICE_MS } from '../../schema/limits.ts'
import { bodyHash, signCall } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import {
  type Account,
  admin,
  admissionOf,
  asCustomer,
  call,
  flush,
  objectOf,
  openAccount,
  registerNode,
} from './world.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

const json = async <T>(response: Promise<Response>): Promise<T> => (await response).json<T>()

const body = JSON.stringify({ name: 'x' })
const toSign = { method: 'POST', path: '/admin/v1/accounts', idempotencyKey: 'k', body: utf8(body) }
const sent = { method: 'POST', path: '/admin/v1/accounts', key: 'k', body }
const postAs = (authorization: string, changes: Partial<typeof sent> = {}) => {
  const { method, path, key, body } = { ...sent, ...changes }
  return call(path, { method, headers: { authorization, 'idempotency-key': key }, body })
}

test('unsigned, wrongly signed and tampered calls are refused', async () => {
  const signed = await signAdminCall(env.ADMIN_SECRET, toSign)
  const bodyAlone = await signCall(utf8(env.ADMIN_SECRET), 'HS256', 'admin', 'admin', utf8(body))
  const foreign = await signAdminCall('other secret'.padEnd(32), toSign)
  for (const authorization of ['', foreign, bodyAlone]) expect((await postAs(authorization)).status).toBe(401)
  for (const changes of [
    { body: JSON.stringify({ name: 'y' }) },
    { method: 'PUT' },
    { path: '/admin/v1/keys' },
    { path: '/admin/v1/accounts?account=x' },
    { key: 'other' },
  ])
    expect((await postAs(signed, changes)).status).toBe(401)
  expect((await postAs(signed)).status).toBe(200)
})

test('a signature that is seen serves for nobody again: one call of two is taken, and logged once', async () => {
  const signed = await signAdminCall(env.ADMIN_SECRET, toSign)
  const answers = await Promise.all([postAs(signed), postAs(signed)])
  expect(answers.map(({ status }) => status).sort()).toEqual([200, 409])
  expect((await postAs(signed)).status).toBe(409)
  // The operator's own repetition is signed anew.
  expect((await postAs(await signAdminCall(env.ADMIN_SECRET, toSign))).status).toBe(200)
  const count = "SELECT count(*) AS n FROM audit_log WHERE phase = 'asked' GROUP BY call_id ORDER BY n DESC LIMIT 1"
  expect(await env.DB.prepare(count).first()).toEqual({ n: 1 })
})

test('a signature that lasts for longer than any may is refused, by whatever clock it was made', async () => {
  const claims = { mth: 'POST', pth: toSign.path, idk: 'k', bsh: await bodyHash(toSign.body) }
  const post = async (seconds: number) => {
    const token = new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).setIssuer('admin').setAudience('admin')
    const ends = token.setJti(crypto.randomUUID()).setIssuedAt().setExpirationTime(`${seconds}s`)
    return (await postAs(`Bearer ${await ends.sign(utf8(env.ADMIN_SECRET))}`)).status
  }
  expect([await post(60), await post(3600)]).toEqual([200, 401])
})

test.each(['/admin/v1/accounts', '/internal/register', '/internal/heartbeat', '/internal/receipts'])(
  'a call to %s that nobody known signed is refused before its body is there: anybody could fill memory',
  async (path) => {
    await registerNode('good')
    const stranger = (await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])) as CryptoKeyPair
    for (const authorization of [
      ...['', 'Bearer x', 'Bearer a.b.c', `Bearer ${'e30.'.repeat(2)}e30`],
      await signCall(utf8('other secret'.padEnd(32)), 'HS256', 'good', 'admin', utf8('')),
      await signCall(stranger.privateKey, 'EdDSA', 'good', 'edge', utf8('')),
    ]) {
      const { readable, writable } = new IdentityTransformStream()
      const writer = writable.getWriter()
      const begun = writer.write(utf8('{"nodeId":"good",')).catch(() => {})
      expect((await call(path, { method: 'POST', headers: { authorization }, body: readable })).status).toBe(401)
      await writer.abort().catch(() => {})
      await begun
    }
  },
)

test('the same call twice is one account, one key, one credit', async () => {
  const name = crypto.randomUUID()
  const [a, b] = [1, 2].map(() => json<object>(admin('POST', '/accounts', { name, creditNano: 500 }, `acc ${name}`)))
  expect(await a).toEqual(await b)
  const keys = await Promise.all(
    [1, 2].map(() => json<{ key: string }>(admin('POST', '/keys', { account: name, name: 'k' }, `key ${name}`))),
  )
  expect(keys[0]?.key).toMatch(/^sk-[0-9a-f]{64}$/)
  expect(keys[0]).toEqual(keys[1])
  await Promise.all([1, 2, 3].map(() => admin('POST', '/topups', { account: name, amountNano: 100 }, `top ${name}`)))
  const after = await json<{ balanceNano: number }>(
    admin('POST', '/topups', { account: name, amountNano: 100 }, `top ${name}`),
  )
  expect(after.balanceNano).toBe(600)
})

test('the same idempotency key for something else is a conflict', async () => {
  const name = crypto.randomUUID()
  await admin('POST', '/accounts', { name }, `acc ${name}`)
  expect((await admin('POST', '/accounts', { name: 'else' }, `acc ${name}`)).status).toBe(409)
  expect((await admin('POST', '/accounts', { name })).status).toBe(409)
  await admin('POST', '/topups', { account: name, amountNano: 1 }, `top ${name}`)
  expect((await admin('POST', '/topups', { account: name, amountNano: 2 }, `top ${name}`)).status).toBe(409)
})

test('one idempotency key tops up one account, not two', async () => {
  const [first, second] = [await openAccount(10), await openAccount(10)]
  const topUp = ({ id }: Account) => admin('POST', '/topups', { account: id, amountNano: 5 }, `invoice ${first.id}`)
  expect((await topUp(first)).status).toBe(200)
  await flush(first)
  expect((await topUp(second)).status).toBe(409)
  expect((await objectOf(second).balance()).balanceNano).toBe(10)
  expect(await json<object>(topUp(first))).toMatchObject({ balanceNano: 15 })
})

test('whose top-up it was is looked up once, not once an account', async () => {
  const { results } = await env.DB.prepare(`EXPLAIN QUERY PLAN ${TOPPED_UP}`).bind('a', 'b').all<{ detail: string }>()
  const plan = results.map(({ detail }) => detail)
  expect(plan[0]).toMatch(/^SEARCH l USING INDEX ledger_top_ups \(id=\?\)/)
  expect(plan.join()).not.toMatch(/SCAN/)
})

test('bad input names the parameter; unknown things are 404', async () => {
  const bad = await admin('POST', '/topups', { account: 'x', amountNano: 1.5 })
  expect(bad.status).toBe(422)
  expect(await bad.json()).toMatchObject({ error: { param: 'amountNano' } })
  expect((await admin('POST', '/topups', { account: 'nobody', amountNano: 1 })).status).toBe(404)
  expect((await admin('POST', '/keys/none/revoke')).status).toBe(404)
  expect((await admin('GET', '/nothing')).status).toBe(404)
})

test('an account shows what it has and what is held', async () => {
  const { id } = await openAccount(5e9)
  const shown = await admin('GET', `/accounts/${id}`)
  expect(await shown.json()).toMatchObject({ id, balanceNano: 5e9, heldNano: 0 })
  expect((await admin('GET', '/accounts/nobody')).status).toBe(404)
})

test('keys are listed without key or hash', async () => {
  const text = await (await admin('GET', '/keys')).text()
  expect(text).toContain('lastFour')
  expect(text).not.toMatch(/keyHash|sk-/)
})

test('a price that follows another is announced: no account can miss it', async () => {
  const model = crypto.randomUUID()
  const price = { model, hitNano: 1, missNano: 2, outputNano: 3 }
  const set = (changes: object) => admin('PUT', '/prices', { ...price, ...changes })
  const first = await json<{ effectiveFrom: number }>(set({}))
  expect(first.effectiveFrom).toBeLessThanOrEqual(Date.now())
  expect(await json<object>(set({}))).toEqual(first)
  const before = Date.now()
  const second = await json<{ effectiveFrom: number }>(set({ missNano: 4 }))
  expect(second.effectiveFrom).toBeGreaterThanOrEqual(before + PRICE_NOTICE_MS)
  expect((await set({ missNano: 5, effectiveFrom: Date.now() })).status).toBe(422)
  expect((await set({ missNano: 5, effectiveFrom: second.effectiveFrom })).status).toBe(409)
  expect(await json<object>(set({ missNano: 4, effectiveFrom: second.effectiveFrom }))).toEqual(second)
})

test('a price that is announced for later can be set for now; the one in force is not announced again', async () => {
  const model = crypto.randomUUID()
  const set = (nano: number, changes: object = {}) =>
    json<{ effectiveFrom: number }>(
      admin('PUT', '/prices', { model, hitNano: nano, missNano: nano, outputNano: nano, ...changes }),
    )
  const first = await set(1)
  const later = Date.now() + 30 * 24 * 3_600_000
  await set(2, { effectiveFrom: later })
  expect(await set(1)).toEqual(first)
  const now = await set(2)
  expect(now.effectiveFrom).toBeLessThan(later)
  expect(await set(2)).toEqual(now)
})

test('a balance is refused that could not be counted to the nano-dollar', async () => {
  const { id } = await openAccount(1e15)
  for (let i = 0; i < 8; i++) await admin('POST', '/topups', { account: id, amountNano: 1e15 })
  const refused = await admin('POST', '/topups', { account: id, amountNano: 1e15 })
  expect([refused.status, await refused.json()]).toMatchObject([422, { error: { param: 'amountNano' } }])
  const rest = Number.MAX_SAFE_INTEGER - 9e15
  const last = await json<object>(admin('POST', '/topups', { account: id, amountNano: rest }))
  expect(last).toMatchObject({ balanceNano: Number.MAX_SAFE_INTEGER })
})

test('a rotated key lasts no longer than the old one; one that has expired is not rotated', async () => {
  const account = await openAccount(1e9)
  const create = (expiresAt: number, call: string) =>
    admin('POST', '/keys', { account: account.id, name: 'k', expiresAt }, `${call} ${account.id}`)
  const expiresAt = Date.now() + 3_600_000
  const { id } = await json<{ id: string }>(create(expiresAt, 'late'))
  const rotate = () => json<{ expiresAt: number }>(admin('POST', `/keys/${id}/rotate`, { overlapSeconds: 1 }, 'once'))
  const rotated = await rotate()
  expect(rotated.expiresAt).toBe(expiresAt)
  expect(await rotate()).toEqual(rotated)
  // Again, since the first answer was lost: not a key that ends with the old one.
  const second = await json<{ expiresAt: number }>(admin('POST', `/keys/${id}/rotate`, { overlapSeconds: 1 }, 'twice'))
  expect(second.expiresAt).toBe(expiresAt)
  expect((await create(Date.now() - 1, 'past')).status).toBe(422)
  const soon = Date.now() + 3_600_000
  const short = await json<{ id: string }>(create(soon, 'short'))
  vi.spyOn(Date, 'now').mockReturnValue(soon)
  expect((await admin('POST', `/keys/${short.id}/rotate`, {})).status).toBe(409)
})

test.each([{ USAGE_DAYS: 'abc' }, { USAGE_DAYS: '0' }, { PULSE_SECONDS: 'soon' }, { AFFINITY_CREDIT: 'of' }])(
  'a setting that means nothing: %o',
  (bad) => {
    const environment = env as unknown as Env
    expect(environmentFault({ ...environment })).toBeUndefined()
    expect(environmentFault({ ...environment, ...bad })).toContain(Object.keys(bad)[0])
  },
)

test('a key that was revoked before its account heard of it stays revoked', async () => {
  const account = await openAccount(1e9)
  const body = { account: account.id, name: 'second' }
  const made = await json<{ id: string; key: string }>(admin('POST', '/keys', body, `two ${account.id}`))
  // The first call ended between D1 and the object.
  await runInDurableObject(objectOf(account), (object, { storage }) => {
    storage.sql.exec('DELETE FROM keys WHERE id = ?', made.id)
    ;(object as unknown as AccountObject).expireKey('none', 1)
  })
  expect((await admin('POST', `/keys/${made.id}/revoke`)).status).toBe(200)
  await admin('POST', '/keys', body, `two ${account.id}`)
  expect((await asCustomer({ ...account, key: made.key }, '/v1/usage')).status).toBe(401)
})

const joinAs = (nodeId: string, publicKey: string, authorization: string, address: string) =>
  call('/internal/register', {
    method: 'POST',
    headers: { authorization },
    body: JSON.stringify({
      ...{ nodeId, address, publicKey, model: 'm', chatFormat: 'f', contextTokens: 1 },
      load: { running: 0, waiting: 0, kvPages: 0, kvPagesUsed: 0, prefillTokensPerSecond: 0 },
    }),
  })

test('an account whose making broke off between D1 and its object can be used all the same', async () => {
  await openAccount(1)
  const name = crypto.randomUUID()
  const account = { id: crypto.randomUUID().replaceAll('-', '').slice(0, 16), key: '', keyId: '' }
  const row = env.DB.prepare('INSERT INTO accounts (id, name, created_at) VALUES (?, ?, 1)')
  await row.bind(account.id, name).run()
  expect((await admin('POST', '/accounts', { name, creditNano: 5 })).status).toBe(409)
  expect((await admin('PUT', `/accounts/${name}/limits`, { concurrency: 1 })).status).toBe(200)
  const { id: keyId, key } = await json<{ id: string; key: string }>(
    admin('POST', '/keys', { account: name, name: 'k' }),
  )
  expect(await json<object>(admin('POST', '/topups', { account: name, amountNano: 1e9 }))).toMatchObject({
    balanceNano: 1e9,
  })
  const known = { ...account, key, keyId }
  const kinds = await Promise.all([1, 2].map(async () => (await objectOf(known).admit(admissionOf(known))).kind))
  expect(kinds.sort()).toEqual(['admitted', 'refused'])
})

test('a node joins with the token only, and nobody takes its name', async () => {
  await registerNode('good')
  const attempt = (authorization: string) => joinAs('good', 'A'.repeat(43), authorization, 'http://evil.test')
  expect((await attempt('Bearer wrong')).status).toBe(401)
  expect((await attempt(`Bearer ${env.JOIN_TOKEN}`)).status).toBe(409)
})

test('of two nodes that come under one id together one gets it, with its own key and address', async () => {
  for (let i = 0; i < 5; i++) {
    const join = (letter: string) =>
      joinAs(`twin-${i}`, letter.repeat(43), `Bearer ${env.JOIN_TOKEN}`, `http://${letter}.test`)
    const [a, b] = await Promise.all([join('a'), join('b')])
    expect([a.status, b.status].sort()).toEqual([200, 409])
    const letter = a.status === 200 ? 'a' : 'b'
    const row = await env.DB.prepare('SELECT address, public_key FROM nodes WHERE id = ?').bind(`twin-${i}`).first()
    expect(row).toEqual({ address: `http://${letter}.test`, public_key: letter.repeat(43) })
  }
})
