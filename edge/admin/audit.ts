// The books, proved: D1 against itself, D1 against every account's object, and (audit_receipts.ts) D1 against the nodes' journals. Each
// disagreement is one finding that names its row. Rows still on their way from an object to D1 are no disagreement.
import { accountObject, type Env } from '../env.ts'
import { reasonOf } from '../log.ts'

export interface Finding {
  readonly kind: string
  readonly account: string
  /** Ledger id, request id, key id or name of what disagrees. */
  readonly row: string
  readonly expected: number | string | null
  readonly found: number | string | null
}

const FINDINGS_MAX = 100
const OBJECTS_AT_ONCE = 25

/** Each returns account, row, expected and found of what disagrees. */
const CHECKS: Readonly<Record<string, string>> = {
  'balance is not the sum of the ledger': `
    SELECT a.id AS account, a.name AS row, coalesce(sum(l.amount_nano), 0) AS expected, a.balance_nano AS found
    FROM accounts AS a LEFT JOIN ledger AS l ON l.account_id = a.id GROUP BY a.id HAVING expected <> found`,
  'ledger has a gap': `
    SELECT account_id AS account, id AS row, position AS expected, seq AS found FROM (
      SELECT account_id, id, seq, row_number() OVER (PARTITION BY account_id ORDER BY seq) AS position FROM ledger)
    WHERE position <> seq GROUP BY account_id HAVING min(seq)`,
  'balance after a row is not the sum up to it': `
    SELECT account_id AS account, id AS row, running AS expected, balance_after_nano AS found FROM (
      SELECT account_id, id, balance_after_nano, sum(amount_nano) OVER (PARTITION BY account_id ORDER BY seq) AS running FROM ledger)
    WHERE running <> balance_after_nano`,
  'usage without a charge': `
    SELECT u.account_id AS account, u.request_id AS row, -u.charged_nano AS expected, NULL AS found
    FROM usage AS u LEFT JOIN ledger AS l ON l.account_id = u.account_id AND l.id = u.request_id WHERE l.id IS NULL`,
  'charge without usage': `
    SELECT l.account_id AS account, l.id AS row, NULL AS expected, l.amount_nano AS found
    FROM ledger AS l LEFT JOIN usage AS u ON u.request_id = l.id WHERE l.kind = 'charge' AND u.request_id IS NULL
      AND l.created_at >= coalesce((SELECT before FROM sweeps WHERE name = 'usage'), 0)`,
  'roll-ups are not the sum of the charges': `
    SELECT a.id AS account, a.name AS row,
      (SELECT -coalesce(sum(amount_nano), 0) FROM ledger WHERE account_id = a.id AND kind = 'charge') AS expected,
      (SELECT coalesce(sum(charged_nano), 0) FROM usage_hours WHERE account_id = a.id) AS found
    FROM accounts AS a WHERE expected <> found`,
  'costs in a roll-up are not those of its usage rows': `
    SELECT h.account_id AS account, h.key_id || ' ' || h.model || ' ' || h.hour AS row, u.text AS expected,
      concat_ws(' ', h.hit_cost_nano, h.miss_cost_nano, h.saved_nano, h.refund_nano) AS found
    FROM usage_hours AS h JOIN (
      SELECT u.account_id, key_id, model, CAST(settled_at - settled_at % 3600000 AS INTEGER) AS hour,
        concat_ws(' ', sum(hit_tokens * hit_nano), sum(miss_tokens * miss_nano), sum(hit_tokens * (miss_nano - hit_nano)),
          coalesce(sum(l.amount_nano), 0)) AS text
      FROM usage AS u LEFT JOIN ledger AS l ON l.account_id = u.account_id AND l.id = 'refund:' || u.request_id
      GROUP BY 1, 2, 3, 4) AS u
      ON u.account_id = h.account_id AND u.key_id = h.key_id AND u.model = h.model AND u.hour = h.hour
    WHERE h.hour >= coalesce((SELECT before FROM sweeps WHERE name = 'usage'), 0) AND h.hit_cost_nano IS NOT NULL
      AND expected <> found`,
  'roll-up is not the sum of its usage rows': `
    SELECT h.account_id AS account, h.key_id || ' ' || h.model || ' ' || h.hour AS row,
      coalesce(u.text, 'nothing') AS expected, concat_ws(' ', h.requests, h.hit_tokens, h.miss_tokens, h.output_tokens, h.credit_nano, h.charged_nano) AS found
    FROM usage_hours AS h LEFT JOIN (
      SELECT account_id, key_id, model, CAST(settled_at - settled_at % 3600000 AS INTEGER) AS hour,
        concat_ws(' ', count(*), sum(hit_tokens), sum(miss_tokens), sum(output_tokens), sum(credit_nano), sum(charged_nano)) AS text
      FROM usage GROUP BY 1, 2, 3, 4) AS u
      ON u.account_id = h.account_id AND u.key_id = h.key_id AND u.model = h.model AND u.hour = h.hour
    WHERE h.hour >= coalesce((SELECT before FROM sweeps WHERE name = 'usage'), 0) AND expected <> found`,
  'charge differs from usage': `
    SELECT u.account_id AS account, u.request_id AS row, -u.charged_nano AS expected, l.amount_nano AS found
    FROM usage AS u JOIN ledger AS l ON l.account_id = u.account_id AND l.id = u.request_id
    WHERE l.amount_nano <> -u.charged_nano OR l.kind <> 'charge'`,
  'usage x price - credit is not the charge': `
    SELECT account_id AS account, request_id AS row,
      hit_tokens * hit_nano + miss_tokens * miss_nano + output_tokens * output_nano - credit_nano AS expected, charged_nano AS found
    FROM usage WHERE expected <> found`,
  'credit is not the sum of its reasons': `
    SELECT account_id AS account, request_id AS row,
      (SELECT coalesce(sum(value ->> 'nano'), 0) FROM json_each(credits)) AS expected, credit_nano AS found
    FROM usage WHERE expected <> found`,
  'affinity credit is not tokens x price difference': `
    SELECT u.account_id AS account, u.request_id AS row, c.value ->> 'tokens' * (u.miss_nano - u.hit_nano) AS expected,
      c.value ->> 'nano' AS found
    FROM usage AS u, json_each(u.credits) AS c WHERE c.value ->> 'reason' = 'affinity'
      AND (expected <> found OR c.value ->> 'tokens' % 64 <> 0 OR c.value ->> 'tokens' > u.miss_tokens)`,
  'price was not in the list': `
    SELECT u.account_id AS account, u.request_id AS row, u.price_from AS expected, NULL AS found
    FROM usage AS u LEFT JOIN prices AS p ON p.model = u.model AND p.effective_from = u.price_from
      AND p.hit_nano = u.hit_nano AND p.miss_nano = u.miss_nano AND p.output_nano = u.output_nano
    WHERE p.model IS NULL`,
  'refund is not its charge': `
    SELECT r.account_id AS account, r.id AS row, -c.amount_nano AS expected, r.amount_nano AS found
    FROM ledger AS r LEFT JOIN ledger AS c ON c.account_id = r.account_id AND c.id = substr(r.id, 8) AND c.kind = 'charge'
    WHERE r.kind = 'refund' AND (c.id IS NULL OR r.amount_nano <> -c.amount_nano)`,
  'another price was in force': `
    SELECT u.account_id AS account, u.request_id AS row, max(p.effective_from) AS expected, u.price_from AS found
    FROM usage AS u JOIN prices AS p ON p.model = u.model AND p.effective_from <= u.admitted_at
    GROUP BY u.request_id HAVING expected <> found`,
  'charge above its hold': `
    SELECT account_id AS account, request_id AS row, hold_nano AS expected, charged_nano AS found
    FROM usage WHERE charged_nano > hold_nano`,
  'two usage rows from one receipt': `
    SELECT account_id AS account, max(request_id) AS row, 1 AS expected, count(*) AS found
    FROM usage GROUP BY node_id, epoch, seq HAVING count(*) > 1`,
}

type Row = Omit<Finding, 'kind'>

const insideD1 = async (env: Env): Promise<Finding[]> => {
  const kinds = Object.keys(CHECKS)
  const statements = Object.values(CHECKS).map((sql) => env.DB.prepare(`${sql} LIMIT ${FINDINGS_MAX}`))
  const answers = await env.DB.batch<Row>(statements)
  return answers.flatMap(({ results }, i) => results.map((row) => ({ kind: kinds[i] ?? '', ...row })))
}

interface AccountLine {
  readonly id: string
  readonly name: string
  readonly balanceNano: number
}

/** D1 up to the last row that the object has handed over. */
const UP_TO = `
  SELECT coalesce(sum(amount_nano), 0) AS sum, count(*) AS rows FROM ledger WHERE account_id = ?1 AND seq <= ?2`
const KEYS = `
  SELECT id FROM api_keys WHERE account_id = ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2) ORDER BY id`

const againstObject = async (env: Env, { id, name }: AccountLine): Promise<Finding[]> => {
  const books = await accountObject(env, id).books().catch(reasonOf)
  // One that is damaged keeps nobody from the rest.
  if (typeof books === 'string')
    return [{ kind: "account's object does not answer", account: id, row: name, expected: 'its books', found: books }]
  const handedOver = books.lastSeq - books.waiting
  const [upTo, keys] = await env.DB.batch<Record<string, unknown>>([
    env.DB.prepare(UP_TO).bind(id, handedOver),
    env.DB.prepare(KEYS).bind(id, Date.now()),
  ])
  const { sum, rows } = (upTo?.results[0] ?? { sum: 0, rows: 0 }) as { sum: number; rows: number }
  const active = (keys?.results ?? []).map((row) => String(row.id))
  const finding = (kind: string, expected: Finding['expected'], found: Finding['found']): Finding[] =>
    expected === found ? [] : [{ kind, account: id, row: name, expected, found }]
  return [
    ...finding("D1 lacks rows of the account's object", handedOver, rows),
    ...finding("object's balance differs from D1", sum, books.balanceNano - books.waitingNano),
    ...finding('holds exceed the balance', 0, Math.max(0, books.heldNano - books.balanceNano)),
    ...finding('active keys differ', active.join(' '), books.activeKeys.join(' ')),
  ]
}

export const audit = async (env: Env) => {
  const { results: accounts } = await env.DB.prepare(
    'SELECT id, name, balance_nano AS balanceNano FROM accounts ORDER BY name',
  ).all<AccountLine & Record<string, unknown>>()
  const findings = await insideD1(env)
  for (let at = 0; at < accounts.length; at += OBJECTS_AT_ONCE) {
    const some = accounts.slice(at, at + OBJECTS_AT_ONCE)
    findings.push(...(await Promise.all(some.map((account) => againstObject(env, account)))).flat())
  }
  return { ok: findings.length === 0, accounts: accounts.length, findings }
}
