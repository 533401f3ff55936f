// What is left at the end, against what really happened: every run that is due once in the ledger, nothing else, the same counts, sums and
// roll-ups, and the edge's own audit.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { audit } from '../../../edge/admin/audit.ts'
import type { KeptSegment } from '../../../edge/evidence.ts'
import { chargeOf } from '../../../schema/bill.ts'
import { costOf, DEFAULT_PRICE } from '../../../schema/money.ts'
import type { Segment } from '../../../schema/wire.ts'
import { runOf, type Truth } from './truth.ts'
import { accountIdOf, isPoor, type World } from './world.ts'

const ROLL_UPS = `
  SELECT account_id, key_id, model, settled_at - settled_at % 3600000 AS hour, count(*), sum(hit_tokens), sum(miss_tokens),
    sum(output_tokens), sum(credit_nano), sum(charged_nano) FROM usage GROUP BY 1, 2, 3, 4`
const KEPT = `
  SELECT account_id, key_id, model, hour, requests, hit_tokens, miss_tokens, output_tokens, credit_nano, charged_nano FROM usage_hours`

export interface Verdict {
  /** Runs whose durable record must be in the ledger. */
  due: number
  /** Due and not in the ledger. */
  losses: number
  /** In the ledger or among the usage rows a second time. */
  duplicates: number
  /** In the ledger although no record says so. */
  phantoms: number
  /** Usage rows whose counts or charge differ from the record or the ledger. */
  wrongRows: number
  /** Not the price of the tokens that were really used: more, or less without a reason. */
  wrongCharges: number
  /** Accounts whose object, ledger and D1 disagree about the balance. */
  wrongBalances: number
  wrongHours: number
  /** Charges that cannot be derived from the kept segments. */
  notDerivable: number
  auditFindings: number
  chargedNano: number
  hours: number
}

type Bill = Float64Array

/** Ledger against truth; returns what each run was charged, NaN for none. */
const checkLedger = ({ database }: World, truth: Truth, v: Verdict): Bill => {
  const bill = new Float64Array(truth.runs).fill(Number.NaN)
  const rows = database.prepare(
    "SELECT account_id AS account, id, amount_nano AS nano FROM ledger WHERE kind = 'charge'",
  )
  for (const row of rows.iterate()) {
    const run = runOf(String(row.id))
    if (!Number.isNaN(bill[run])) v.duplicates++
    if (!truth.isDue(run) || row.account !== accountIdOf(truth.account[run] ?? 0)) v.phantoms++
    bill[run] = -Number(row.nano)
    v.chargedNano -= Number(row.nano)
  }
  for (let run = 0; run < truth.runs; run++) {
    if (!truth.isDue(run)) continue
    v.due++
    if (Number.isNaN(bill[run])) v.losses++
  }
  return bill
}

const checkUsage = ({ database }: World, truth: Truth, bill: Bill, v: Verdict): void => {
  const seen = new Uint8Array(truth.runs)
  const rows = database.prepare(
    'SELECT request_id AS id, attempt, hit_tokens AS hit, miss_tokens AS miss, output_tokens AS output, charged_nano AS nano FROM usage',
  )
  for (const row of rows.iterate()) {
    const run = runOf(String(row.id))
    if (seen[run]) v.duplicates++
    seen[run] = 1
    const at = truth.slot(run, Number(row.attempt))
    const same = row.hit === truth.hit[at] && row.miss === truth.miss[at] && row.output === truth.output[at]
    const full = costOf({ hit: Number(row.hit), miss: Number(row.miss), output: Number(row.output) }, DEFAULT_PRICE)
    // A poor account's late receipt may find nothing left.
    const isExact = !truth.mayCredit[run] && !isPoor(truth.account[run] ?? 0)
    if (Number(row.nano) > full || (isExact && row.nano !== full)) v.wrongCharges++
    if (!same || row.nano !== bill[run] || row.attempt !== truth.attempt[run]) v.wrongRows++
  }
  for (let run = 0; run < truth.runs; run++) if (!Number.isNaN(bill[run]) && !seen[run]) v.losses++
}

const checkBalances = async (
  world: World,
  topUpNano: (account: number) => number,
  accounts: number,
  v: Verdict,
): Promise<void> => {
  const sums = world.database.prepare('SELECT sum(amount_nano) AS sum FROM ledger WHERE account_id = ?')
  const kept = world.database.prepare('SELECT balance_nano AS nano FROM accounts WHERE id = ?')
  const charged = world.database.prepare(
    'SELECT coalesce(sum(charged_nano), 0) AS nano FROM usage WHERE account_id = ?',
  )
  for (let account = 0; account < accounts; account++) {
    const id = accountIdOf(account)
    const { balanceNano } = await world.object(account).balance()
    const views = [sums.get(id)?.sum, kept.get(id)?.nano, topUpNano(account) - Number(charged.get(id)?.nano)]
    if (balanceNano < 0 || views.some((nano) => nano !== balanceNano)) v.wrongBalances++
  }
}

const checkHours = ({ database }: World, v: Verdict): void => {
  const count = (query: string): number => Number(database.prepare(`SELECT count(*) AS n FROM (${query})`).get()?.n)
  v.hours = Number(database.prepare('SELECT count(DISTINCT hour) AS n FROM usage_hours').get()?.n)
  v.wrongHours =
    count(`SELECT * FROM (${ROLL_UPS}) EXCEPT ${KEPT}`) + count(`${KEPT} EXCEPT SELECT * FROM (${ROLL_UPS})`)
}

/** The bill once more, from receipts and terms in the kept segments alone. */
const checkEvidence = (dir: string, bill: Bill, v: Verdict): void => {
  const derived = new Float64Array(bill.length).fill(Number.NaN)
  for (const name of readdirSync(join(dir, 'r2'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.json')) continue
    const kept = JSON.parse(readFileSync(join(dir, 'r2', name), 'utf8')) as KeptSegment
    const receipts = (JSON.parse(kept.segment) as Segment).receipts.map(({ receipt }) => receipt)
    for (const terms of kept.terms) {
      const receipt = receipts.find(
        ({ requestId, attempt }) => requestId === terms.requestId && attempt === terms.attempt,
      )
      if (receipt) derived[runOf(terms.requestId)] = chargeOf(receipt, terms)
    }
  }
  bill.forEach((nano, run) => {
    if (!Number.isNaN(nano) && derived[run] !== nano) v.notDerivable++
  })
}

export const check = async (
  world: World,
  truth: Truth,
  { dir, accounts, topUpNano }: { dir: string; accounts: number; topUpNano: (account: number) => number },
): Promise<Verdict> => {
  const v: Verdict = {
    ...{
      due: 0,
      losses: 0,
      duplicates: 0,
      phantoms: 0,
      wrongRows: 0,
      wrongCharges: 0,
      wrongBalances: 0,
      wrongHours: 0,
      notDerivable: 0,
    },
    ...{ auditFindings: 0, chargedNano: 0, hours: 0 },
  }
  const bill = checkLedger(world, truth, v)
  checkUsage(world, truth, bill, v)
  await checkBalances(world, topUpNano, accounts, v)
  checkHours(world, v)
  checkEvidence(dir, bill, v)
  v.auditFindings = (await audit(world.env)).findings.length
  return v
}
