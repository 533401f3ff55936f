// `npm run admin -- <command>`: the operator's command line, thin over the admin API. `--json` prints the API's own answer.
import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { KeyLimits } from '../schema/key_limits.ts'
import { AMOUNT_MAX_NANO } from '../schema/limits.ts'
import { formatUsd, parseUsd } from '../schema/money.ts'
import { auditBooks } from './admin_audit.ts'
import { AdminError, adminCall } from './admin_client.ts'
import { deriveBills, resealAll } from './admin_evidence.ts'
import { print } from './admin_print.ts'
import type { Row } from './admin_rows.ts'
import { isOperators, loadSecrets, ROOT } from './stack.ts'

const USAGE = `usage: npm run admin -- COMMAND [--json] [--idempotency-key KEY]
  account create --name NAME [--credit USD]     accounts
  account limits --account NAME LIMITS          log
  key create --account NAME --name NAME [--expires TIME] LIMITS  keys
  key limits --id KEY_ID LIMITS                 nodes
  key rotate --id KEY_ID [--overlap SECONDS]    (the old key works that long; default: a day)
  key revoke --id KEY_ID                        node remove --id NODE_ID [--force]   (for good)
  topup --account NAME --usd USD                prices
  price set --model NAME --hit N --miss N --output N [--from TIME]   (nano-dollars a token)
  price withdraw --model NAME --from TIME       (announced for later; its effectiveFrom)
  ledger | usage --account NAME [--from TIME] [--to TIME] [--out FILE]   (newest 1,000; all of them as CSV with --out)
  evidence [--account NAME --out FILE]          derives the bills again from the sealed receipts, and compares
  evidence reseal                               seals it with the Worker's new SPARROW_SECRET, so that the one before may go
  audit [--journal DIR]      (a node's journal; default: the one of npm start)
TIME: 2027-01-31 (its first moment, UTC), 2027-01-31T09:30Z, or Unix milliseconds
LIMITS: --rpm N --tpm N --cached-tpm N --concurrency N --budget USD --models A,B --ips RANGE,RANGE (none: no limit) --affinity-credit on|off
Settings: SPARROW_URL (default: where npm start listens), ADMIN_SECRET (default: what npm start made).`

class UsageError extends Error {}

const CONFIG = {
  allowPositionals: true,
  tokens: true,
  options: {
    json: { type: 'boolean', default: false },
    force: { type: 'boolean' },
    'idempotency-key': { type: 'string' },
    ...Object.fromEntries(
      [
        ...[
          'name',
          'credit',
          'account',
          'usd',
          'id',
          'model',
          'hit',
          'miss',
          'output',
          'overlap',
          'journal',
          'from',
          'to',
        ],
        ...['expires', 'rpm', 'tpm', 'cached-tpm', 'concurrency', 'budget', 'models', 'ips', 'affinity-credit', 'out'],
      ].map((n) => [n, { type: 'string' as const }]),
    ),
  },
} as const

const parsed = (): ReturnType<typeof parseArgs<typeof CONFIG>> => {
  try {
    return parseArgs(CONFIG)
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`)
    process.exit(1)
  }
}

const { values, positionals, tokens } = parsed()
const given = values as Readonly<Record<string, string | boolean | undefined>>
/** What the command asked for, given or not. */
const taken = new Set(['json'])
const option = (name: string): string | boolean | undefined => {
  taken.add(name)
  return given[name]
}

const need = (name: string): string => {
  const value = option(name)
  if (typeof value !== 'string' || value === '') throw new UsageError(`--${name} is needed`)
  return value
}

/** The API says its bounds in nano-dollars, which nobody typed. */
const usd = (name: string, least = 0): number => {
  const nano = parseUsd(need(name))
  if (nano === undefined || nano < least || nano > AMOUNT_MAX_NANO) {
    const bounds = `from ${formatUsd(least)} to ${formatUsd(AMOUNT_MAX_NANO)}`
    throw new UsageError(`--${name} takes dollars, such as 10 or 0.5, ${bounds}`)
  }
  return nano
}

const integer = (name: string): number => {
  const text = need(name)
  const value = Number(text)
  // An empty variable in quotes is no price of zero.
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw new UsageError(`--${name} takes a whole number`)
  return value
}

const secret = (): string => {
  if (process.env.ADMIN_SECRET) return process.env.ADMIN_SECRET
  if (!existsSync(join(stateDir, 'dev.env'))) throw new UsageError('Set ADMIN_SECRET, or run npm start once.')
  return loadSecrets(stateDir).ADMIN_SECRET
}

const KEY = option('idempotency-key')
const idempotencyKey = typeof KEY === 'string' ? KEY : randomUUID()
/** As a header it arrives whole: others are sent otherwise than they were signed, or not at all. */
const IS_HEADER = /^(?! )[ -~]{1,200}(?<! )$/
/** What only reads has no key to be repeated with. */
let changes = false

const call = <T>(method: string, path: string, body?: object): Promise<T> => {
  // What has no effect must not look as if it had: `account create --budget 50` makes no budget.
  const foreign = Object.keys(given).find((name) => !taken.has(name))
  if (foreign !== undefined) throw new UsageError(`--${foreign} is no option of this command\n${USAGE}`)
  // Of two amounts the operator meant one.
  const named = tokens.flatMap((token) => (token.kind === 'option' ? [token.name] : []))
  const twice = named.find((name, i) => named.indexOf(name) !== i)
  if (twice !== undefined) throw new UsageError(`--${twice} is given twice`)
  if (!IS_HEADER.test(idempotencyKey))
    throw new UsageError('--idempotency-key takes 1 to 200 ASCII characters, blanks only between others')
  changes = method !== 'GET' && !/^\/(audit|evidence)\/(receipts|booked)$/.test(path)
  return adminCall<T>({
    baseUrl,
    secret: secret(),
    method,
    path: `/admin/v1${path}`,
    ...(body ? { body } : {}),
    idempotencyKey,
  })
}

const list = (name: string): string[] =>
  need(name)
    .split(',')
    .map((part) => part.trim())

const onOrOff = (name: string): boolean => {
  const value = need(name)
  if (value !== 'on' && value !== 'off') throw new UsageError(`--${name} takes on or off`)
  return value === 'on'
}

/** The limits given; each call sets all of them, so one that is left out is lifted. */
const limits = (): KeyLimits => ({
  ...(option('rpm') === undefined ? {} : { requestsPerMinute: integer('rpm') }),
  ...(option('tpm') === undefined ? {} : { uncachedTokensPerMinute: integer('tpm') }),
  ...(option('cached-tpm') === undefined ? {} : { cachedTokensPerMinute: integer('cached-tpm') }),
  ...(option('concurrency') === undefined ? {} : { concurrency: integer('concurrency') }),
  ...(option('budget') === undefined ? {} : { monthlyBudgetNano: usd('budget') }),
  ...(option('models') === undefined ? {} : { models: list('models') }),
  ...(option('ips') === undefined ? {} : { ipRanges: list('ips') }),
  ...(option('affinity-credit') === undefined ? {} : { affinityCredit: onOrOff('affinity-credit') }),
})

/** A moment that reads the same on every machine: a time of day names its zone. */
const TIME = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?$/

const time = (name: string): number => {
  const text = need(name)
  if (/^\d{13}$/.test(text)) return Number(text)
  const [day = ''] = text.split('T')
  // JavaScript takes 31 February for 3 March.
  const isDay = TIME.test(text) && new Date(Date.parse(day) || 0).toISOString().startsWith(day)
  const at = isDay ? Date.parse(text) : Number.NaN
  if (Number.isNaN(at)) throw new UsageError(`--${name} takes a date, such as 2027-01-31, or 2027-01-31T09:30Z`)
  return at
}

const expiry = (): { expiresAt?: number } => (option('expires') === undefined ? {} : { expiresAt: time('expires') })

const stateDir = process.env.SPARROW_HOME || join(ROOT, '.sparrow')
/** By default where `npm start` listens in this environment; empty is not set, as there. */
const baseUrl = process.env.SPARROW_URL || `http://127.0.0.1:${process.env.SPARROW_PORT || 8787}`

/** None is nothing to prove by; one that is named must be there. */
const journalDirs = (): string[] => {
  if (option('journal') === undefined) return [join(stateDir, 'node', 'journal')].filter((dir) => existsSync(dir))
  const dir = need('journal')
  if (!existsSync(dir) || !readdirSync(dir).some((name) => /^journal-.*\.log$/.test(name)))
    throw new UsageError(
      `--journal: ${dir} holds no journal of a node (journal-*.log in the folder \`journal\` of its state directory)`,
    )
  return [dir]
}

/** The newest rows of an account, or those of a time; with `--out` all of them, in a file. */
const rowsOf = async (table: 'ledger' | 'usage') => {
  const asked = new URLSearchParams({ account: need('account') })
  for (const name of ['from', 'to']) if (option(name) !== undefined) asked.set(name, String(time(name)))
  const file = option('out') === undefined ? undefined : need('out')
  const page = async (before?: string) => {
    if (before !== undefined) asked.set('before', before)
    return (await call<{ data: Row[] }>('GET', `/${table}?${asked}`)).data
  }
  if (file === undefined) return { data: await page() }
  // It loads the tables, which takes most of a second: no other command is to wait for them.
  const { writeRows } = await import('./admin_rows.ts')
  return writeRows(table, file, page)
}

const COMMANDS: Readonly<Record<string, () => Promise<object>>> = {
  'account create': () =>
    call('POST', '/accounts', { name: need('name'), creditNano: option('credit') === undefined ? 0 : usd('credit') }),
  'account limits': () => call('PUT', `/accounts/${encodeURIComponent(need('account'))}/limits`, limits()),
  'key create': () =>
    call('POST', '/keys', { account: need('account'), name: need('name'), limits: limits(), ...expiry() }),
  'key limits': () => call('PUT', `/keys/${encodeURIComponent(need('id'))}/limits`, limits()),
  'key rotate': () =>
    call(
      'POST',
      `/keys/${encodeURIComponent(need('id'))}/rotate`,
      option('overlap') === undefined ? {} : { overlapSeconds: integer('overlap') },
    ),
  'key revoke': () => call('POST', `/keys/${encodeURIComponent(need('id'))}/revoke`, {}),
  'node remove': () =>
    call('POST', `/nodes/${encodeURIComponent(need('id'))}/remove`, { force: option('force') === true }),
  topup: () => call('POST', '/topups', { account: need('account'), amountNano: usd('usd', 1) }),
  'price set': () =>
    call('PUT', '/prices', {
      model: need('model'),
      hitNano: integer('hit'),
      missNano: integer('miss'),
      outputNano: integer('output'),
      ...(option('from') === undefined ? {} : { effectiveFrom: time('from') }),
    }),
  'price withdraw': () => call('POST', '/prices/withdraw', { model: need('model'), effectiveFrom: time('from') }),
  accounts: () => call('GET', '/accounts'),
  keys: () => call('GET', '/keys'),
  nodes: () => call('GET', '/nodes'),
  prices: () => call('GET', '/prices'),
  ledger: () => rowsOf('ledger'),
  usage: () => rowsOf('usage'),
  log: () => call('GET', '/log'),
  audit: () => auditBooks(call, journalDirs()),
  evidence: () => evidence(),
  'evidence reseal': () => resealAll(call),
}

/** Charges of the last minute may not have reached D1. */
const SETTLING_MS = 60_000

/** The books against the evidence; with `--account` the bill, written to `--out` line by line. */
const evidence = async () => {
  if (option('out') !== undefined && option('account') === undefined) throw new UsageError('--out needs --account')
  const path = option('account') === undefined ? undefined : `/accounts/${encodeURIComponent(need('account'))}`
  const account = path === undefined ? undefined : await call<{ id: string }>('GET', path)
  const until = Date.now() - SETTLING_MS
  const { lines, sha256, ...report } = await deriveBills(call, until, account?.id)
  if (option('out') !== undefined) writeFileSync(need('out'), lines.map((line) => `${line}\n`).join(''))
  return account ? { ...report, until, lines: lines.length, sha256 } : { ...report, until }
}

const main = async (): Promise<void> => {
  const name = positionals.join(' ')
  const command = COMMANDS[name]
  if (!command)
    throw new UsageError(positionals.length > 0 ? `unknown command: ${positionals.join(' ')}\n${USAGE}` : USAGE)
  const answer = await command()
  print(answer, option('json') === true, name)
  if ('ok' in answer && answer.ok === false) process.exitCode = 1
}

/** What keeps a call from being sent at all: no connection, no such host, no address. */
const UNSENT: readonly unknown[] = [
  ...['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT', 'ENOTFOUND', 'EAI_AGAIN'],
  'ERR_INVALID_URL',
]

/** The call arrived, or may have, and how it ended is not known. */
const mayBeDone = (error: unknown): boolean =>
  error instanceof AdminError
    ? error.status >= 500
    : error instanceof TypeError && !UNSENT.includes(((error.cause ?? error) as NodeJS.ErrnoException).code)

main().catch((error: unknown) => {
  if (error instanceof UsageError) console.error(error.message)
  else if (error instanceof AdminError) {
    console.error(`${error.code}: ${error.message}`)
    if (error.status === 401) console.error("Is ADMIN_SECRET the Worker's, and the clock of this machine right?")
  } else if (isOperators(error)) console.error(error.message)
  else if (error instanceof TypeError)
    console.error(`The edge cannot be reached at ${baseUrl}. Is it running there? Its address is set by SPARROW_URL.`)
  else throw error
  if (changes && mayBeDone(error))
    console.error(`It may be done all the same. Repeat it so that it counts once: --idempotency-key ${idempotencyKey}`)
  process.exitCode = 1
})
