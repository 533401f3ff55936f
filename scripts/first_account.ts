// The first start makes a price, an account with credit and a key, through the same admin API that operators use. Every call
// is idempotent, so a start that broke half-way simply does it again.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ADMIN_ROWS_MAX } from '../schema/limits.ts'
import { DEFAULT_PRICE, NANO_PER_USD } from '../schema/money.ts'
import { AdminError, adminCall } from './admin_client.ts'
import type { Secrets } from './stack.ts'
import { writeWhole } from './write_whole.ts'

export const DEMO_ACCOUNT = 'demo'
const DEMO_CREDIT_NANO = 10 * NANO_PER_USD

interface Created {
  readonly key: string
  readonly revokedAt: number | null
}

/** The demo account's API key; kept in the state directory, readable by its owner only, so that a later start shows it. */
export const firstKey = async (stateDir: string, baseUrl: string, secrets: Secrets, model: string): Promise<string> => {
  const file = join(stateDir, 'api_key')
  const call = <T>(method: string, path: string, body?: unknown, idempotencyKey?: string) =>
    adminCall<T>({
      ...{ baseUrl, secret: secrets.ADMIN_SECRET, method, path },
      ...(body === undefined ? {} : { body }),
      ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
    })
  const { data } = await call<{ data: { model: string }[] }>('GET', '/admin/v1/prices')
  const { hit, miss, output } = DEFAULT_PRICE
  const price = { model, hitNano: hit, missNano: miss, outputNano: output }
  // Also of a model that a later start serves: without a price nobody may ask it. A list that is not whole says nothing.
  if (data.length < ADMIN_ROWS_MAX && !data.some((row) => row.model === model))
    await call('PUT', '/admin/v1/prices', price, 'first-price')
  if (existsSync(file)) return readFileSync(file, 'utf8').trim()
  const account = { name: DEMO_ACCOUNT, creditNano: DEMO_CREDIT_NANO }
  await call('POST', '/admin/v1/accounts', account, 'first-account').catch((error: unknown) => {
    // Made before SPARROW_SECRET was replaced: the same call would make another one now.
    if (!(error instanceof AdminError && error.code === 'conflict')) throw error
  })
  const wanted = { account: DEMO_ACCOUNT, name: 'first key' }
  const create = (idempotencyKey?: string) => call<Created>('POST', '/admin/v1/keys', wanted, idempotencyKey)
  const first = await create('first-key').catch((error: unknown) => {
    // Rotated meanwhile, which gave it an expiry.
    if (!(error instanceof AdminError && error.code === 'conflict')) throw error
    return undefined
  })
  const { key } = first && first.revokedAt === null ? first : await create()
  writeWhole(file, `${key}\n`)
  return key
}
