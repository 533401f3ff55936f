// The books, checked: every account's ledger sums to its balance, and usage times price is what was charged.
import type { Env } from '../env.ts'

const LEDGER = `
  SELECT a.id, a.name, a.balance_nano AS balanceNano, coalesce(sum(l.amount_nano), 0) AS ledgerNano,
    count(l.id) AS rows, coalesce(max(l.seq), 0) AS lastSeq
  FROM accounts AS a LEFT JOIN ledger AS l ON l.account_id = a.id GROUP BY a.id ORDER BY a.name`

const CHARGES = `
  SELECT count(*) AS wrong FROM usage AS u LEFT JOIN ledger AS l ON l.account_id = u.account_id AND l.id = u.request_id
  WHERE l.id IS NULL OR l.amount_nano <> -u.charged_nano
    OR u.charged_nano > u.hit_tokens * u.hit_nano + u.miss_tokens * u.miss_nano + u.output_tokens * u.output_nano`

const CAPPED = `
  SELECT count(*) AS capped FROM usage
  WHERE charged_nano < hit_tokens * hit_nano + miss_tokens * miss_nano + output_tokens * output_nano`

interface AccountLine {
  readonly id: string
  readonly name: string
  readonly balanceNano: number
  readonly ledgerNano: number
  readonly rows: number
  readonly lastSeq: number
}

export const audit = async (env: Env) => {
  const [ledger, charges, capped] = await env.DB.batch<Record<string, unknown>>([
    env.DB.prepare(LEDGER),
    env.DB.prepare(CHARGES),
    env.DB.prepare(CAPPED),
  ])
  const lines = (ledger?.results ?? []) as unknown as AccountLine[]
  const accounts = lines.map((line) => ({
    ...line,
    ok: line.balanceNano === line.ledgerNano && line.rows === line.lastSeq,
  }))
  const wrongCharges = Number(charges?.results[0]?.wrong ?? 0)
  return {
    ok: wrongCharges === 0 && accounts.every((account) => account.ok),
    accounts,
    wrongCharges,
    /** Charges below usage x price because a late receipt met an emptied balance; allowed, but worth a look. */
    cappedCharges: Number(capped?.results[0]?.capped ?? 0),
  }
}
