// An account's object as the first version left it, under the Worker of today: holds, waiting rows and books.
import { runInDurableObject } from 'cloudflare:test'
import { beforeEach, expect, test } from 'vitest'
import { deriveBills } from '../../scripts/admin_evidence.ts'
import {
  type Account,
  admin,
  COST,
  flush,
  MODEL,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  send,
} from './world.ts'

const CREDIT = 1_000_000
const PRICE = JSON.stringify({ hit: 28, miss: 280, output: 420 })

const TABLES = `
  CREATE TABLE account (id TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0), seq INTEGER NOT NULL);
  CREATE TABLE keys (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, expires_at INTEGER, revoked INTEGER NOT NULL);
  CREATE TABLE holds (request_id TEXT PRIMARY KEY, key_id TEXT NOT NULL, model TEXT NOT NULL, amount INTEGER NOT NULL,
    attempt INTEGER NOT NULL, price TEXT NOT NULL, state TEXT NOT NULL, created_at INTEGER NOT NULL, closed_at INTEGER);
  CREATE INDEX holds_state ON holds (state, created_at);
  CREATE TABLE topups (id TEXT PRIMARY KEY, amount INTEGER NOT NULL);
  CREATE TABLE outbox (seq INTEGER PRIMARY KEY, item TEXT NOT NULL);`

let account: Account
beforeEach(async () => {
  account = await openAccount(CREDIT)
  await flush(account)
})

test('what waits is booked, what runs is settled; the audit names what their rows do not say, and nothing else', async () => {
  const node = await registerNode('good')
  const [settled, open] = [crypto.randomUUID(), crypto.randomUUID()]
  const now = Date.now()
  const charge = { receipt: receiptOf(node, account, settled), signature: 's', price: JSON.parse(PRICE), now }
  const ledger = { accountId: account.id, id: settled, kind: 'charge', amountNano: -COST, seq: 2, createdAt: now }
  const item = {
    ledger: { ...ledger, balanceAfterNano: CREDIT - COST },
    charge: { ...charge, chargedNano: COST },
  }
  await runInDurableObject(objectOf(account), (_object, state) => {
    const { sql } = state.storage
    const keys = sql.exec('SELECT id, hash FROM keys').toArray()
    for (const { name } of sql
      .exec(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'",
      )
      .toArray())
      sql.exec(`DROP TABLE ${name}`)
    sql.exec(TABLES)
    sql.exec('INSERT INTO account VALUES (?, ?, 2)', account.id, CREDIT - COST)
    for (const { id, hash } of keys) sql.exec('INSERT INTO keys VALUES (?, ?, NULL, 0)', id ?? '', hash ?? '')
    sql.exec(
      "INSERT INTO holds VALUES (?, ?, ?, 100000, 1, ?, 'open', ?, NULL)",
      open,
      account.keyId,
      MODEL,
      PRICE,
      now,
    )
    sql.exec('INSERT INTO outbox VALUES (2, ?)', JSON.stringify(item))
  })
  const update = (_object: unknown, state: DurableObjectState) => state.abort('the Worker is updated')
  await runInDurableObject(objectOf(account), update).catch(() => {})
  expect((await send(node, [receiptOf(node, account, open)])).refused).toEqual([])
  await flush(account)
  expect(await objectOf(account).balance()).toEqual({ balanceNano: CREDIT - 2 * COST, heldNano: 0 })
  const ask = async <T>(method: string, path: string, body?: object): Promise<T> =>
    (await admin(method, path, body)).json<T>()
  const { findings: differences } = await deriveBills(ask, Date.now() + 1000)
  expect(differences.filter(({ row }) => row === open)).toEqual([])
  const { findings } = await (await admin('GET', '/audit')).json<{ findings: { account: string; kind: string }[] }>()
  const kinds = findings.flatMap(({ account: id, kind }) => (id === account.id ? [kind] : []))
  // The first version wrote down neither which price nor which hold was theirs: a row without is no row to pass over.
  expect([...new Set(kinds)].sort()).toEqual([
    ...['another price was in force', 'charge above its hold', 'price was not in the list'],
  ])
})
