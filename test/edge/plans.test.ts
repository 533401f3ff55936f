// What a call asks of D1 finds its rows by an index: tables that grow with every request are never read from end to end. Audit and evidence,
// which prove all books, are left out.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { beforeAll, expect, test } from 'vitest'
import { accountStore } from '../../edge/account/store.ts'
import type { Env } from '../../edge/env.ts'
import worker from '../../edge/index.ts'
import { flushOutbox } from '../../edge/outbox.ts'
import { SWEEP } from '../../edge/retention.ts'
import { signAdminCall } from '../../schema/admin_call.ts'
import { utf8 } from '../../schema/text.ts'
import { type Account, chat, flush, idOf, objectOf, openAccount, receiptOf, registerNode, send } from './world.ts'

interface Asked {
  readonly sql: string
  values: readonly unknown[]
}

/** A database that writes down what it is asked. */
const recording = (asked: Asked[]): D1Database => {
  const statement = (real: D1PreparedStatement, entry: Asked): D1PreparedStatement =>
    new Proxy(real, {
      get: (target, name) => {
        const value = Reflect.get(target, name)
        if (name !== 'bind') return typeof value === 'function' ? value.bind(target) : value
        return (...values: unknown[]) => {
          entry.values = values
          return target.bind(...values)
        }
      },
    })
  return new Proxy(env.DB, {
    get: (target, name) => {
      if (name !== 'prepare') return Reflect.get(target, name).bind(target)
      return (sql: string) => {
        const entry = { sql, values: [] }
        asked.push(entry)
        return statement(target.prepare(sql), entry)
      }
    },
  })
}

/** Lines of the plan that read a table of many rows whole. */
const scans = async ({ sql, values }: Asked): Promise<string[]> => {
  const plan = env.DB.prepare(`EXPLAIN QUERY PLAN ${sql}`).bind(...values)
  const { results } = await plan.all<{ detail: string }>()
  const aliases = [...sql.matchAll(/\b(?:usage|ledger|usage_hours|prefix_blocks) AS (\w+)/g)].map(([, alias]) => alias)
  const many = new RegExp(
    `^SCAN (?:usage|ledger|usage_hours|prefix_blocks|audit_log${aliases.map((a) => `|${a}`).join('')})\\b`,
  )
  return results.map(({ detail }) => detail).filter((line) => many.test(line))
}

let account: Account
let id: string
beforeAll(async () => {
  const node = await registerNode('good')
  account = await openAccount(1e9)
  id = idOf(await chat(account.key))
  await send(node, [receiptOf(node, account, id)])
  await flush(account)
})

const context = { waitUntil: () => {}, passThroughOnException: () => {}, props: {} } as unknown as ExecutionContext

const ask = async (method: string, path: string, headers: Record<string, string>, body?: string): Promise<Asked[]> => {
  const asked: Asked[] = []
  const request = new Request(`http://edge.test${path}`, { method, headers, ...(body ? { body } : {}) })
  const response = await worker.fetch(request, { ...(env as unknown as Env), DB: recording(asked) }, context)
  expect([path, response.status]).toEqual([path, 200])
  return asked
}

test.each(['', '?limit=5', '?from=1&to=2', '?after=ID', '/ID', '/ID/prefix'])('GET /v1/usage%s', async (rest) => {
  const asked = await ask('GET', `/v1/usage${rest.replace('ID', id)}`, { authorization: `Bearer ${account.key}` })
  expect(asked.length).toBeGreaterThan(0)
  for (const one of asked) expect([one.sql, await scans(one)]).toEqual([one.sql, []])
})

test.each([
  ['GET', '/ledger?account=ACCOUNT'],
  ['GET', '/ledger?account=ACCOUNT&before=2&from=1&to=2'],
  ['GET', '/usage?account=ACCOUNT'],
  ['GET', '/usage?account=ACCOUNT&before=ID&from=1&to=2'],
  ['GET', '/accounts/ACCOUNT'],
  ['POST', '/topups', { account: 'ACCOUNT', amountNano: 1 }],
  ['POST', '/evidence/booked', { requestIds: ['ID'] }],
] as const)('%s /admin/v1%s', async (method, path, body?: object) => {
  const fill = (text: string): string => text.replace('ACCOUNT', account.id).replace('ID', id)
  const text = body ? fill(JSON.stringify(body)) : ''
  const call = { method, path: `/admin/v1${fill(path)}`, idempotencyKey: crypto.randomUUID(), body: utf8(text) }
  const authorization = await signAdminCall(env.ADMIN_SECRET, call)
  const asked = await ask(method, call.path, { authorization, 'idempotency-key': call.idempotencyKey }, text)
  expect(asked.length).toBeGreaterThan(0)
  for (const one of asked) expect([one.sql, await scans(one)]).toEqual([one.sql, []])
})

test('what the outbox writes and the sweep deletes', async () => {
  const asked: Asked[] = []
  await objectOf(account).topUp(crypto.randomUUID(), 1)
  await runInDurableObject(objectOf(account), (_object, { storage }) =>
    flushOutbox(recording(asked), accountStore(storage)),
  )
  expect(asked.length).toBeGreaterThan(1)
  for (const one of [...asked, { sql: SWEEP, values: ['0', 0, 10] }])
    expect([one.sql, await scans(one)]).toEqual([one.sql, []])
})
