// Limits of keys and accounts, as a customer meets them: statuses, headers, rotation, revocation; and that a forged key costs nothing.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeAll, expect, test, vi } from 'vitest'
import { nextMonth } from '../../edge/account/money.ts'
import type { Env } from '../../edge/env.ts'
import worker from '../../edge/index.ts'
import type { KeyLimits } from '../../schema/key_limits.ts'
import { RECEIPT_WINDOW_MS } from '../../schema/limits.ts'
import {
  type Account,
  admin,
  admissionOf,
  alarm,
  asCustomer,
  call,
  chat,
  flush,
  MODEL,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  send,
  type TestNode,
} from './world.ts'

let node: TestNode
beforeAll(async () => {
  node = await registerNode('good')
})
afterEach(() => {
  vi.restoreAllMocks()
})

/** Stops the clock: on a slow machine, too, nothing refills, expires or is given up in the middle of a test. */
const freeze = (at = Date.now()): number => {
  vi.spyOn(Date, 'now').mockReturnValue(at)
  return at
}

const made = async (account: Account, limits: KeyLimits, name = 'limited'): Promise<Account> => {
  const answer = await admin('POST', '/keys', { account: account.id, name, limits })
  const { id, key } = await answer.json<{ id: string; key: string }>()
  return { id: account.id, key, keyId: id }
}

const errorOf = async (response: Response): Promise<[number, string]> => {
  const { error } = await response.json<{ error: { code: string } }>()
  return [response.status, error.code]
}

test('requests a minute: the third of two is a 429 that says when to come back', async () => {
  freeze()
  const key = await made(await openAccount(1e9), { requestsPerMinute: 2 })
  const first = await chat(key.key)
  expect(first.headers.get('x-ratelimit-limit-requests')).toBe('2')
  expect(first.headers.get('x-ratelimit-remaining-requests')).toBe('1')
  expect(first.headers.get('x-ratelimit-reset-requests')).toMatch(/^\d+(\.\d+)?s$/)
  await chat(key.key)
  const third = await chat(key.key)
  expect(third.headers.get('retry-after')).toBe('30')
  expect(third.headers.get('retry-after-ms')).toBe('30000')
  expect(third.headers.get('x-should-retry')).toBe('true')
  expect(await errorOf(third)).toEqual([429, 'rate_limit_exceeded'])
})

test('cached and uncached tokens are limited apart, by what the receipts say', async () => {
  const key = await made(await openAccount(1e9), { uncachedTokensPerMinute: 100_000, cachedTokensPerMinute: 64 })
  const first = await chat(key.key, { messages: [{ role: 'user', content: 'x'.repeat(400) }] })
  const left = () => chat(key.key, { model: 'none' }).then(({ headers }) => headers)
  expect(first.headers.get('x-ratelimit-remaining-cached-tokens')).toBe('64')
  const id = first.headers.get('x-request-id') ?? ''
  await send(node, [receiptOf(node, key, id, { hitTokens: 128, missTokens: 10, outputTokens: 5 })])
  const second = await chat(key.key)
  expect(await errorOf(second)).toEqual([429, 'rate_limit_exceeded'])
  expect(second.headers.get('x-ratelimit-remaining-cached-tokens')).toBe('0')
  // The estimate was drawn at admission; the receipt gave back what was not used.
  expect(Number(second.headers.get('x-ratelimit-remaining-tokens'))).toBeGreaterThanOrEqual(100_000 - 15)
  expect((await left()).get('x-ratelimit-limit-tokens')).toBeNull()
})

test('an answer that failed gives its tokens back, once', async () => {
  freeze()
  const key = await made(await openAccount(1e9), { uncachedTokensPerMinute: 1_000 })
  const object = objectOf(key)
  const a = admissionOf(key, { maxTokens: 900 })
  expect((await object.admit(a)).kind).toBe('admitted')
  expect((await object.admit(admissionOf(key, { maxTokens: 900 }))).kind).toBe('refused')
  for (let i = 0; i < 2; i++) {
    await object.release(a.requestId)
    const again = await object.admit(admissionOf(key, { maxTokens: 900 }))
    expect(again.kind).toBe(i === 0 ? 'admitted' : 'refused')
  }
})

test('a run whose receipt never came gives back what it drew, to be drawn again if the receipt comes', async () => {
  const key = await made(await openAccount(1e9), { uncachedTokensPerMinute: 1_000 })
  const object = objectOf(key)
  const now = freeze()
  const lost = admissionOf(key, { maxTokens: 9_000 })
  expect((await object.admit(lost)).kind).toBe('admitted')
  expect((await object.admit(admissionOf(key))).kind).toBe('refused')
  // Its bucket would be full again after nine minutes, and the hold ends after fifteen.
  await runInDurableObject(object, (_object, { storage }) => {
    storage.sql.exec('UPDATE holds SET created_at = ? WHERE request_id = ?', now - RECEIPT_WINDOW_MS, lost.requestId)
  })
  await alarm(key)
  expect((await object.admit(admissionOf(key, { maxTokens: 900 }))).kind).toBe('admitted')
  await send(node, [receiptOf(node, key, lost.requestId, { missTokens: 5, outputTokens: 500 })])
  expect((await object.admit(admissionOf(key, { maxTokens: 50 }))).kind).toBe('refused')
})

test('concurrency: no more than so many at once, but a sequential client never meets the limit', async () => {
  const key = await made(await openAccount(1e9), { concurrency: 2 })
  const answers = await Promise.all(Array.from({ length: 6 }, () => chat(key.key)))
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(2)
  expect(answers.filter(({ status }) => status === 429)).toHaveLength(4)
  // The receipt trails the answer: the next request waits for it, for as long as the clock stands.
  freeze()
  const ran = answers.find(({ status }) => status === 200)?.headers.get('x-request-id') ?? ''
  const next = chat(key.key)
  await send(node, [receiptOf(node, key, ran)])
  expect((await next).status).toBe(200)
})

test('a monthly budget holds under a burst, and is the family of keys that spends it', async () => {
  const account = await openAccount(1e9)
  const probe = admissionOf(account)
  await objectOf(account).admit(probe)
  const one = (await objectOf(account).balance()).heldNano
  const key = await made(account, { monthlyBudgetNano: one * 3 })
  const burst = Array.from({ length: 20 }, () => admissionOf(key))
  const answers = await Promise.all(burst.map((a) => objectOf(account).admit(a)))
  const ran = burst.filter((_, i) => answers[i]?.kind === 'admitted')
  expect(ran).toHaveLength(3)
  const now = freeze()
  await send(
    node,
    ran.map(({ requestId }) => receiptOf(node, key, requestId, { missTokens: 20, outputTokens: 10 })),
  )
  const rotated = await (await admin('POST', `/keys/${key.keyId}/rotate`, {})).json<{ key: string }>()
  const refused = await chat(rotated.key)
  expect(refused.headers.get('retry-after')).toBe(String(Math.ceil((nextMonth(now) - now) / 1000)))
  expect(refused.headers.get('x-should-retry')).toBe('false')
  expect(await errorOf(refused)).toEqual([429, 'insufficient_quota'])
  expect((await chat(account.key)).status).toBe(200)
})

test("an account's limits bind all its keys together", async () => {
  const account = await openAccount(1e9)
  expect((await admin('PUT', `/accounts/${account.id}/limits`, { requestsPerMinute: 2 })).status).toBe(200)
  const limits = { requestsPerMinute: 2 }
  const { data } = await (await admin('GET', '/accounts')).json<{ data: { id: string }[] }>()
  expect(data.find(({ id }) => id === account.id)).toMatchObject({ limits })
  expect(await (await admin('GET', `/accounts/${account.id}`)).json()).toMatchObject({ limits })
  const other = await made(account, {})
  expect((await chat(account.key)).status).toBe(200)
  expect((await chat(other.key)).status).toBe(200)
  expect((await chat(account.key)).status).toBe(429)
})

test('models: others are refused, and not listed', async () => {
  const key = await made(await openAccount(1e9), { models: ['another'] })
  expect(await errorOf(await chat(key.key))).toEqual([403, 'permission_denied'])
  expect(await (await asCustomer(key, '/v1/models')).json()).toMatchObject({ data: [] })
  await admin('PUT', `/keys/${key.keyId}/limits`, { models: [MODEL] })
  expect((await chat(key.key)).status).toBe(200)
  await admin('PUT', `/keys/${key.keyId}/limits`, { models: ['deepseek-chat'] })
  await vi.waitFor(async () => expect((await chat(key.key, { model: 'deepseek-chat' })).status).toBe(200), 30_000)
  expect((await chat(key.key)).status).toBe(403)
})

test('addresses: a key works from its ranges only, for whatever it asks', async () => {
  const key = await made(await openAccount(1e9), { ipRanges: ['203.0.113.0/24', '2001:db8::/32'] })
  const from = (ip: string) => chat(key.key, {}, { 'cf-connecting-ip': ip })
  expect((await from('203.0.113.9')).status).toBe(200)
  expect((await from('2001:db8::9')).status).toBe(200)
  expect(await errorOf(await from('203.0.114.9'))).toEqual([403, 'permission_denied'])
  expect(
    await errorOf(await asCustomer(key, '/user/balance', { headers: { 'cf-connecting-ip': '192.0.2.1' } })),
  ).toEqual([...[403, 'permission_denied']])
})

test('limits that make no sense are refused by name', async () => {
  const { id } = await openAccount(1)
  const bad = await admin('POST', '/keys', { account: id, name: 'k', limits: { ipRanges: ['300.1.1.1'] } })
  expect(await bad.json()).toMatchObject({ error: { code: 'invalid_parameter', param: 'limits.ipRanges.0' } })
  expect((await admin('POST', '/keys', { account: id, name: 'k', limits: { requestPerMinute: 1 } })).status).toBe(422)
})

test('rotation overlaps: both keys work, the old one until its time; usage is seen by both', async () => {
  freeze()
  const account = await openAccount(1e9)
  const id = (await chat(account.key)).headers.get('x-request-id') ?? ''
  await send(node, [receiptOf(node, account, id)])
  await flush(account)
  const rotate = () => admin('POST', `/keys/${account.keyId}/rotate`, { overlapSeconds: 3 }, `rotate ${account.keyId}`)
  const fresh = await (await rotate()).json<{ key: string; rotated: { expiresAt: number } }>()
  expect(await (await rotate()).json()).toEqual(fresh)
  expect((await chat(account.key)).status).toBe(200)
  expect((await chat(fresh.key)).status).toBe(200)
  const usage = await call(`/v1/usage/${id}`, { headers: { authorization: `Bearer ${fresh.key}` } })
  expect(usage.status).toBe(200)
  freeze(fresh.rotated.expiresAt - 1)
  expect((await chat(account.key)).status).toBe(200)
  freeze(fresh.rotated.expiresAt)
  expect((await chat(account.key)).status).toBe(401)
  expect((await chat(fresh.key)).status).toBe(200)
})

test('revocation acts on the next request', async () => {
  const key = await made(await openAccount(1e9), {})
  expect((await chat(key.key)).status).toBe(200)
  await admin('POST', `/keys/${key.keyId}/revoke`)
  const answers = await Promise.all([chat(key.key), asCustomer(key, '/v1/models'), asCustomer(key, '/v1/usage')])
  expect(answers.map(({ status }) => status)).toEqual([401, 401, 401])
})

test('a forged key costs no look-up: neither D1 nor any object is asked', async () => {
  const account = await openAccount(1)
  const touched: string[] = []
  const watch = <T extends object>(name: string, target: T): T =>
    new Proxy(target, {
      get: (_target, property) => {
        touched.push(`${name}.${String(property)}`)
        throw new Error('looked up')
      },
    })
  const bare = env as unknown as Env
  const watched = { ...bare, DB: watch('DB', bare.DB), ACCOUNT: watch('ACCOUNT', bare.ACCOUNT) }
  const flipped = account.key.at(-1) === '0' ? '1' : '0'
  const context = { waitUntil: () => {}, passThroughOnException: () => {}, props: {} } as unknown as ExecutionContext
  for (const path of ['/v1/chat/completions', '/v1/models', '/v1/usage', '/user/balance']) {
    for (const key of [account.key.slice(0, -1) + flipped, `sk-${'0'.repeat(64)}`, 'sk-x']) {
      const headers = { authorization: `Bearer ${key}` }
      const init = path.endsWith('completions') ? { method: 'POST', headers, body: '{}' } : { headers }
      expect((await worker.fetch(new Request(`http://edge.test${path}`, init), watched, context)).status).toBe(401)
    }
  }
  expect(touched).toEqual([])
})
