// `npm run admin -- <command>`: the operator's command line, thin over the admin API. `--json` prints the API's own answer.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { formatUsd, parseUsd } from '../schema/money.ts'
import { AdminError, adminCall } from './admin_client.ts'
import { loadSecrets, ROOT } from './stack.ts'

const USAGE = `usage: npm run admin -- COMMAND [--json] [--idempotency-key KEY]
  account create --name NAME [--credit USD]     accounts
  key create --account NAME --name NAME         keys
  key revoke --id KEY_ID                        nodes
  topup --account NAME --usd USD                prices
  price set --model NAME --hit N --miss N --output N   (nano-dollars a token)
  ledger --account NAME                         usage --account NAME
  audit
Settings: SPARROW_URL (default http://127.0.0.1:8787), ADMIN_SECRET (default: what npm start made).`

class UsageError extends Error {}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    'idempotency-key': { type: 'string' },
    ...Object.fromEntries(
      ['name', 'credit', 'account', 'usd', 'id', 'model', 'hit', 'miss', 'output'].map((n) => [
        n,
        { type: 'string' as const },
      ]),
    ),
  },
})
const options = values as Readonly<Record<string, string | boolean | undefined>>

const need = (name: string): string => {
  const value = options[name]
  if (typeof value !== 'string' || value === '') throw new UsageError(`--${name} is needed`)
  return value
}

const usd = (name: string): number => {
  const nano = parseUsd(need(name))
  if (nano === undefined) throw new UsageError(`--${name} takes dollars, such as 10 or 0.5`)
  return nano
}

const integer = (name: string): number => {
  const value = Number(need(name))
  if (!Number.isSafeInteger(value) || value < 0) throw new UsageError(`--${name} takes a whole number of nano-dollars`)
  return value
}

const secret = (): string => {
  if (process.env.ADMIN_SECRET) return process.env.ADMIN_SECRET
  const stateDir = process.env.SPARROW_HOME ?? join(ROOT, '.sparrow')
  if (!existsSync(join(stateDir, 'dev.env'))) throw new UsageError('Set ADMIN_SECRET, or run npm start once.')
  return loadSecrets(stateDir).ADMIN_SECRET
}

const call = <T>(method: string, path: string, body?: object): Promise<T> => {
  const key = options['idempotency-key']
  return adminCall<T>({
    baseUrl: process.env.SPARROW_URL ?? 'http://127.0.0.1:8787',
    secret: secret(),
    method,
    path: `/admin/v1${path}`,
    ...(body ? { body } : {}),
    ...(typeof key === 'string' ? { idempotencyKey: key } : {}),
  })
}

const ofAccount = (path: string): string => `${path}?account=${encodeURIComponent(need('account'))}`

const COMMANDS: Readonly<Record<string, () => Promise<object>>> = {
  'account create': () =>
    call('POST', '/accounts', { name: need('name'), creditNano: options.credit === undefined ? 0 : usd('credit') }),
  'key create': () => call('POST', '/keys', { account: need('account'), name: need('name') }),
  'key revoke': () => call('POST', `/keys/${encodeURIComponent(need('id'))}/revoke`, {}),
  topup: () => call('POST', '/topups', { account: need('account'), amountNano: usd('usd') }),
  'price set': () =>
    call('PUT', '/prices', {
      model: need('model'),
      hitNano: integer('hit'),
      missNano: integer('miss'),
      outputNano: integer('output'),
    }),
  accounts: () => call('GET', '/accounts'),
  keys: () => call('GET', '/keys'),
  nodes: () => call('GET', '/nodes'),
  prices: () => call('GET', '/prices'),
  ledger: () => call('GET', ofAccount('/ledger')),
  usage: () => call('GET', ofAccount('/usage')),
  audit: () => call('GET', '/audit'),
}

/** Money columns in dollars, for people; `--json` keeps the integers. */
const readable = (row: object): object =>
  Object.fromEntries(
    Object.entries(row).map(([name, value]) =>
      name.endsWith('Nano') && typeof value === 'number' && Math.abs(value) >= 1000
        ? [name.replace(/Nano$/, 'Usd'), formatUsd(value)]
        : [name, value],
    ),
  )

const print = (answer: object): void => {
  if (options.json) console.log(JSON.stringify(answer))
  else if ('data' in answer && Array.isArray(answer.data)) console.table(answer.data.map(readable))
  else {
    for (const [name, value] of Object.entries(readable(answer))) {
      console.log(`${name}: ${typeof value === 'object' ? JSON.stringify(value) : value}`)
    }
  }
}

const main = async (): Promise<void> => {
  const command = COMMANDS[positionals.join(' ')]
  if (!command)
    throw new UsageError(positionals.length > 0 ? `unknown command: ${positionals.join(' ')}\n${USAGE}` : USAGE)
  const answer = await command()
  print(answer)
  if ('ok' in answer && answer.ok === false) process.exitCode = 1
}

main().catch((error: unknown) => {
  if (error instanceof UsageError) console.error(error.message)
  else if (error instanceof AdminError) console.error(`${error.code}: ${error.message}`)
  else if (error instanceof TypeError) console.error('The edge cannot be reached. Is it running? (SPARROW_URL)')
  else throw error
  process.exitCode = 1
})
