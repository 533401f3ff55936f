// The audit finds what it is for: one planted discrepancy of each kind. And what administrators do is written down for good.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import type { Finding } from '../../edge/admin/audit.ts'
import { auditReceipts } from '../../edge/admin/audit_receipts.ts'
import type { Env } from '../../edge/env.ts'
import {
  type Account,
  admin,
  admissionOf,
  alarm,
  chat,
  flush,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  send,
  type TestNode,
} from './world.ts'

let node: TestNode
let account: Account
let ids: string[]
beforeAll(async () => {
  node = await registerNode('good')
})
beforeEach(async () => {
  for (const table of ['usage', 'usage_hours', 'ledger']) await env.DB.prepare(`DELETE FROM ${table}`).run()
  await env.DB.prepare('DELETE FROM api_keys').run()
  await env.DB.prepare('DELETE FROM accounts').run()
  account = await openAccount(1_000_000)
  ids = await Promise.all([1, 2, 3].map(async () => (await chat(account.key)).headers.get('x-request-id') ?? ''))
  await send(
    node,
    ids.map((id, seq) => receiptOf(node, account, id, { seq })),
  )
  await flush(account)
})

afterEach(() => {
  vi.restoreAllMocks()
})

const findings = async (): Promise<Finding[]> =>
  (await (await admin('GET', '/audit')).json<{ findings: Finding[] }>()).findings
const kinds = async () => [...new Set((await findings()).map(({ kind }) => kind))].sort()
const alter = (sql: string, ...values: unknown[]) =>
  env.DB.prepare(sql)
    .bind(...values)
    .run()
const alterObject = (sql: string) =>
  runInDurableObject(objectOf(account), (_object, state) => void state.storage.sql.exec(sql))

test('books in order have no findings', async () => {
  expect(await (await admin('GET', '/audit')).json()).toEqual({ ok: true, accounts: 1, findings: [] })
})

test('an object that does not answer is a finding that names its account; the others are audited all the same', async () => {
  const other = await openAccount(1_000_000)
  await flush(other)
  await alter('UPDATE accounts SET balance_nano = balance_nano + 1 WHERE id = ?', other.id)
  await alterObject('ALTER TABLE outbox RENAME TO lost')
  const found = await findings()
  expect(found).toContainEqual(
    expect.objectContaining({
      ...{ kind: "account's object does not answer", account: account.id },
      found: expect.stringContaining('no such table: outbox'),
    }),
  )
  expect(found).toContainEqual(expect.objectContaining({ account: other.id, found: 1_000_001 }))
  await alterObject('ALTER TABLE lost RENAME TO outbox')
})

test('rows on their way to D1 are no discrepancy', async () => {
  const id = (await chat(account.key)).headers.get('x-request-id') ?? ''
  await env.DB.prepare('ALTER TABLE ledger RENAME TO ledger_away').run()
  await send(node, [receiptOf(node, account, id, { seq: 3 })])
  await alarm(account)
  await env.DB.prepare('ALTER TABLE ledger_away RENAME TO ledger').run()
  expect(await findings()).toEqual([])
  await flush(account)
})

test.each([
  ['balance is not the sum of the ledger', () => alter('UPDATE accounts SET balance_nano = balance_nano + 1')],
  ['ledger has a gap', () => alter('UPDATE ledger SET seq = seq + 1 WHERE id = ?', ids[2])],
  [
    'balance after a row is not the sum up to it',
    () => alter('UPDATE ledger SET balance_after_nano = 0 WHERE id = ?', ids[1]),
  ],
  ['usage without a charge', () => alter('DELETE FROM ledger WHERE id = ?', ids[1])],
  ['charge without usage', () => alter('DELETE FROM usage WHERE request_id = ?', ids[1])],
  ['charge differs from usage', () => alter('UPDATE ledger SET amount_nano = amount_nano + 1 WHERE id = ?', ids[1])],
  [
    'usage x price - credit is not the charge',
    () => alter('UPDATE usage SET output_tokens = 6 WHERE request_id = ?', ids[1]),
  ],
  [
    'credit is not the sum of its reasons',
    () => alter('UPDATE usage SET credit_nano = 1 WHERE request_id = ?', ids[1]),
  ],
  [
    'affinity credit is not tokens x price difference',
    () =>
      alter(`UPDATE usage SET credits = '[{"reason":"affinity","nano":5,"tokens":64}]' WHERE request_id = ?`, ids[1]),
  ],
  [
    'affinity credit is not tokens x price difference',
    // Half a page.
    () => {
      const credits = JSON.stringify([{ reason: 'affinity', nano: 32 * 252, tokens: 32 }])
      return alter('UPDATE usage SET miss_tokens = 100, credits = ? WHERE request_id = ?', credits, ids[1])
    },
  ],
  [
    'affinity credit is not tokens x price difference',
    // More than was computed.
    () => {
      const credits = JSON.stringify([{ reason: 'affinity', nano: 64 * 252, tokens: 64 }])
      return alter('UPDATE usage SET credits = ? WHERE request_id = ?', credits, ids[1])
    },
  ],
  ['charge differs from usage', () => alter("UPDATE ledger SET kind = 'top_up' WHERE id = ?", ids[1])],
  [
    'refund is not its charge',
    () =>
      alter(
        "INSERT INTO ledger SELECT account_id, 'refund:' || id, 'refund', 1, 9, 0, created_at FROM ledger WHERE id = ?",
        ids[1],
      ),
  ],
  ['roll-ups are not the sum of the charges', () => alter('UPDATE usage_hours SET charged_nano = charged_nano + 1')],
  [
    'roll-up is not the sum of its usage rows',
    () => alter('UPDATE usage_hours SET hit_tokens = 64, output_tokens = 0, requests = 7'),
  ],
  [
    'costs in a roll-up are not those of its usage rows',
    () => alter('UPDATE usage_hours SET miss_cost_nano = 1, refund_nano = 1'),
  ],
  [
    'another price was in force',
    async () => {
      const price = `INSERT INTO prices (model, hit_nano, miss_nano, output_nano, effective_from)
        SELECT request_id, hit_nano, miss_nano, output_nano,`
      await alter(`${price} price_from FROM usage WHERE request_id = ?`, ids[1])
      await alter(`${price} admitted_at - 1 FROM usage WHERE request_id = ?`, ids[1])
      await alter('UPDATE usage SET model = request_id WHERE request_id = ?', ids[1])
    },
  ],
  [
    'refund is not its charge',
    () =>
      alter("UPDATE ledger SET kind = 'refund', amount_nano = -amount_nano, id = 'refund:' || id WHERE id = ?", ids[1]),
  ],
  ['price was not in the list', () => alter('UPDATE usage SET price_from = 1 WHERE request_id = ?', ids[1])],
  ['charge above its hold', () => alter('UPDATE usage SET hold_nano = 1 WHERE request_id = ?', ids[1])],
  ['two usage rows from one receipt', () => alter('UPDATE usage SET seq = 0 WHERE request_id = ?', ids[1])],
  ["D1 lacks rows of the account's object", () => alter('DELETE FROM ledger WHERE id = ?', ids[2])],
  ["object's balance differs from D1", () => alterObject('UPDATE account SET balance = balance + 1')],
  ['holds exceed the balance', () => alterObject("UPDATE holds SET state = 'open', amount = 2000000")],
  ['active keys differ', () => alterObject('UPDATE keys SET revoked = 1')],
])('planted: %s', async (kind, plant) => {
  await plant()
  expect(await kinds()).toContain(kind)
  expect((await findings()).find((finding) => finding.kind === kind)).toMatchObject({ account: account.id })
})

test('an account is looked at however many come before it', async () => {
  await alter(`WITH RECURSIVE c(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM c WHERE i < 69)
    INSERT INTO accounts (id, name, created_at) SELECT 'unused' || i, '!' || i, 0 FROM c`)
  await alterObject('UPDATE account SET balance = balance + 1')
  expect(await findings()).toMatchObject([{ kind: "object's balance differs from D1", account: account.id }])
})

test('a key that has expired is missing from neither side', async () => {
  const expiresAt = Date.now() + 3_600_000
  await admin('POST', '/keys', { account: account.id, name: 'short', expiresAt })
  expect(await findings()).toEqual([])
  vi.spyOn(Date, 'now').mockReturnValue(expiresAt)
  expect(await findings()).toEqual([])
})

const compare = async (entry: object): Promise<Finding[]> => {
  const sound = { requestId: ids[0], attempt: 1, accountId: account.id, epoch: 'e1', seq: 0 }
  const counts = { hitTokens: 0, missTokens: 10, outputTokens: 5, closedAt: Date.now(), acknowledged: true }
  const body = { nodeId: 'good', entries: [{ ...sound, ...counts, ...entry }] }
  return (await (await admin('POST', '/audit/receipts', body)).json<{ findings: Finding[] }>()).findings
}

test('a journal that agrees has no findings; nor has what was rightly not charged', async () => {
  expect(await compare({})).toEqual([])
  const failed = (await chat(account.key)).headers.get('x-request-id') ?? ''
  await objectOf(account).release(failed)
  expect(await compare({ requestId: failed })).toEqual([])
  expect(await compare({ requestId: crypto.randomUUID(), missTokens: 0, outputTokens: 0 })).toEqual([])
})

test('a receipt that waits a moment, or stands in the outbox, or whose attempt was given up, is no discrepancy', async () => {
  expect(await compare({ requestId: crypto.randomUUID(), acknowledged: false })).toEqual([])
  expect(await compare({ attempt: 2, seq: 7 })).toEqual([])
  const [waits, open] = [admissionOf(account), admissionOf(account)]
  await objectOf(account).admit(waits)
  await send(node, [receiptOf(node, account, waits.requestId, { seq: 9 })])
  expect(await compare({ requestId: waits.requestId, seq: 9 })).toEqual([])
  await objectOf(account).admit(open)
  await objectOf(account).setAttempt(open.requestId, 'other', { attempt: 1, nodeId: 'good', code: 'node_failed' }, 0)
  expect(await compare({ requestId: open.requestId })).toEqual([])
  await flush(account)
})

test('a charge whose usage row was swept already is not lost', async () => {
  const [id = ''] = ids
  await alter('DELETE FROM usage WHERE request_id = ?', id)
  const counts = { hitTokens: 0, missTokens: 10, outputTokens: 5, acknowledged: true }
  const entry = { requestId: id, attempt: 1, accountId: account.id, epoch: 'e1', seq: 0, ...counts }
  const after = async (days: string) => {
    const asked = { nodeId: 'good', entries: [{ ...entry, closedAt: Date.now() - 2 * 24 * 3_600_000 }] }
    const compared = await auditReceipts({ ...(env as unknown as Env), USAGE_DAYS: days }, asked)
    return compared.ok ? compared.value.findings.length : compared
  }
  expect([await after('1'), await after('3')]).toEqual([0, 1])
})

test('what an object forgot after a week, and what arrives in D1 meanwhile, is no discrepancy', async () => {
  const failed = (await chat(account.key)).headers.get('x-request-id') ?? ''
  await objectOf(account).release(failed)
  const long = 8 * 24 * 3_600_000
  await runInDurableObject(objectOf(account), (_object, { storage }) => {
    storage.sql.exec('DELETE FROM holds WHERE request_id = ?', failed)
  })
  expect(await compare({ requestId: failed, closedAt: Date.now() - long })).toEqual([])

  const admission = admissionOf(account)
  await objectOf(account).admit(admission)
  await send(node, [receiptOf(node, account, admission.requestId, { seq: 9 })])
  const { ACCOUNT: real } = env as unknown as Env
  // The row reaches D1 behind the first look.
  const late = {
    idFromName: (name: string) => real.idFromName(name),
    get: (id: DurableObjectId) => ({
      holdOf: (requestId: string) => flush(account).then(() => real.get(id).holdOf(requestId)),
      isWaiting: (requestId: string) => real.get(id).isWaiting(requestId),
    }),
  }
  const sound = { requestId: admission.requestId, attempt: 1, accountId: account.id, epoch: 'e1', seq: 9 }
  const counts = { hitTokens: 0, missTokens: 10, outputTokens: 5, closedAt: Date.now(), acknowledged: true }
  const asked = { nodeId: 'good', entries: [{ ...sound, ...counts }] }
  expect(await auditReceipts({ ...(env as unknown as Env), ACCOUNT: late as unknown as typeof real }, asked)).toEqual({
    ok: true,
    value: { findings: [] },
  })
})

test.each([
  ['booked counts differ from the receipt', { outputTokens: 6 }],
  ['booked from another receipt', { seq: 7 }],
  ['acknowledged receipt is not booked', { requestId: 'never-booked' }],
  ['receipt waits for longer than its hold', { requestId: 'waits', acknowledged: false, closedAt: 1 }],
])('planted in a journal: %s', async (kind, entry) => {
  expect((await compare(entry)).map((finding) => finding.kind)).toEqual([kind])
})

interface LogRow {
  readonly callId: string
  readonly phase: string
  readonly action: string
  readonly detail: string
}

test('every admin action leaves two rows in the log, refused ones too, without the key it made', async () => {
  const made = await admin('POST', '/keys', { account: account.id, name: 'logged' })
  const { key } = await made.json<{ key: string }>()
  await admin('POST', '/topups', { account: 'nobody', amountNano: 1 })
  const { data } = await (await admin('GET', '/log')).json<{ data: LogRow[] }>()
  const [refused, asked, done, before] = data
  expect(refused).toMatchObject({
    phase: 'refused',
    action: 'POST /topups',
    detail: '{"status":404,"code":"not_found"}',
  })
  expect(asked).toMatchObject({ phase: 'asked', callId: refused?.callId })
  expect(done).toMatchObject({ phase: 'done', action: 'POST /keys' })
  expect(before?.detail).toContain('logged')
  expect(JSON.stringify(data)).not.toContain(key)
})

test('the log can be neither changed nor shortened, and without it nothing is done', async () => {
  await expect(alter('UPDATE audit_log SET action = ?', 'x')).rejects.toThrow('append-only')
  await expect(alter('DELETE FROM audit_log')).rejects.toThrow('append-only')
  await alter('ALTER TABLE audit_log RENAME TO audit_log_away')
  const failed = await admin('POST', '/topups', { account: account.id, amountNano: 5 })
  await alter('ALTER TABLE audit_log_away RENAME TO audit_log')
  expect(failed.status).toBe(500)
  expect((await objectOf(account).balance()).balanceNano).toBeLessThan(1_000_000)
})

test('a call that was done is answered so, also when its outcome cannot be logged: the operator would do it again', async () => {
  const before = (await objectOf(account).balance()).balanceNano
  await alter(
    "CREATE TRIGGER no_outcome BEFORE INSERT ON audit_log WHEN NEW.phase = 'done' BEGIN SELECT RAISE(ABORT, 'full'); END",
  )
  const made = await admin('POST', '/topups', { account: account.id, amountNano: 5 })
  await alter('DROP TRIGGER no_outcome')
  expect([made.status, await made.json()]).toMatchObject([200, { balanceNano: before + 5 }])
})
