// An operator's view of one account's rows: pages that miss none and repeat none, and those of a time.
import { env } from 'cloudflare:workers'
import { expect, test } from 'vitest'
import { ADMIN_ROWS_MAX } from '../../schema/limits.ts'
import { admin, openAccount } from './world.ts'

const ROWS = ADMIN_ROWS_MAX + 3
const START = 1_800_000_000_000

/** Ledger and usage rows of an account; three and three share a moment. */
const plant = async (accountId: string): Promise<string[]> => {
  const ids = Array.from({ length: ROWS }, () => crypto.randomUUID())
  const rows = JSON.stringify(ids.map((id, i) => [id, i + 2, START + Math.floor(i / 3)]))
  await env.DB.batch([
    env.DB.prepare(
      `INSERT INTO ledger SELECT ?1, 'charge:' || (value ->> 0), 'charge', -1, value ->> 1, 0, value ->> 2 FROM json_each(?2)`,
    ).bind(accountId, rows),
    env.DB.prepare(
      `INSERT INTO usage (request_id, account_id, key_id, node_id, epoch, seq, attempt, model, hit_tokens, miss_tokens, output_tokens,
        reasoning_tokens, hit_nano, miss_nano, output_nano, charged_nano, finish, opened_at, closed_at, settled_at, signature)
      SELECT value ->> 0, ?1, 'k', 'n', 'e', value ->> 1, 1, 'm', 0, 1, 0, 0, 0, 1, 0, 1, 'stop', 0, 0, value ->> 2, 's' FROM json_each(?2)`,
    ).bind(accountId, rows),
  ])
  return ids
}

interface Row {
  readonly seq: number
  readonly requestId: string
  readonly settledAt: number
  readonly createdAt: number
}
const page = async (path: string, query: Record<string, string>): Promise<Row[]> => {
  const answer = await admin('GET', `${path}?${new URLSearchParams(query)}`)
  expect(answer.status).toBe(200)
  return (await answer.json<{ data: Row[] }>()).data
}

test.each(['ledger', 'usage'] as const)(
  'pages of %s have every row once, newest first; a time has its own',
  async (table) => {
    const account = await openAccount(1)
    await plant(account.id)
    const nameOf = (row: Row): string => (table === 'ledger' ? String(row.seq) : row.requestId)
    const asked = { account: account.id, from: String(START) }
    const first = await page(`/${table}`, asked)
    const rest = await page(`/${table}`, { ...asked, before: nameOf(first.at(-1) as Row) })
    expect([first.length, rest.length]).toEqual([ADMIN_ROWS_MAX, 3])
    const all = [...first, ...rest]
    expect(new Set(all.map(nameOf)).size).toBe(ROWS)
    const times = all.map((row) => (table === 'ledger' ? row.createdAt : row.settledAt))
    expect(times).toEqual(times.toSorted((a, b) => b - a))
    expect(await page(`/${table}`, { ...asked, before: nameOf(all.at(-1) as Row) })).toEqual([])
    const two = await page(`/${table}`, { account: account.id, from: String(START + 1), to: String(START + 3) })
    expect(two.length).toBe(6)
  },
)

test('a time that is none, and a row that is not there, are told', async () => {
  const account = await openAccount(1)
  const refused = async (path: string) => {
    const answer = await admin('GET', path)
    return [answer.status, (await answer.json<{ error: { param: string } }>()).error.param]
  }
  expect(await refused(`/ledger?account=${account.id}&from=`)).toEqual([422, 'from'])
  expect(await refused(`/usage?account=${account.id}&before=x`)).toEqual([422, 'before'])
  expect(await refused(`/usage?account=${account.id}&before=${crypto.randomUUID()}`)).toEqual([404, 'before'])
})
