// The edge of the simulation: the real Worker and the real account objects over the storage of platform.ts. Any call to an object may
// be lost on its way, cut between two writes, or answered after the object is gone.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { AccountObject } from '../../../edge/account.ts'
import type { Env } from '../../../edge/env.ts'
import worker from '../../../edge/index.ts'
import { DEFAULT_PRICE } from '../../../schema/money.ts'
import { type Faults, isInjected } from './faults.ts'
import { d1, type ObjectStorage, objectStorage, openDatabase, r2 } from './platform.ts'

export const MODEL = 'sparrow-mini'
const MIGRATIONS = join(import.meta.dirname, '../../../schema/migrations')

export const accountIdOf = (account: number): string => account.toString(16).padStart(16, '0')
/** Every tenth account runs out of money. */
export const isPoor = (account: number): boolean => account % 10 === 9
export const topUpOf = (account: number): number => (isPoor(account) ? 20_000_000 : 9_000_000_000_000)
export const keyIdOf = (account: number): string => `key_${accountIdOf(account)}`

class HostedObject {
  readonly #kept: ObjectStorage
  readonly #env: Env
  readonly #faults: Faults
  #object: AccountObject

  constructor(env: Env, faults: Faults) {
    this.#kept = objectStorage(faults)
    this.#env = env
    this.#faults = faults
    this.#object = this.#start()
  }

  #start(): AccountObject {
    return new AccountObject({ storage: this.#kept.storage } as unknown as DurableObjectState, this.#env)
  }

  async call(name: string, args: unknown[]): Promise<unknown> {
    this.#faults.throwIf('object_call_lost')
    try {
      const method = Reflect.get(this.#object, name) as (...args: unknown[]) => unknown
      const answer = await method.apply(this.#object, args)
      this.#faults.throwIf('object_restarted_before_answer')
      return answer
    } catch (error) {
      this.#object = this.#start()
      throw error
    }
  }

  async alarm(now: number): Promise<void> {
    const due = this.#kept.alarm
    if (due === null || due > now) return
    this.#kept.clearAlarm()
    await this.#object.alarm()
  }
}

/** Tries until the call is through: what the caller may repeat. */
export const untilDone = async <T>(work: () => Promise<T>): Promise<T> => {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!isInjected(error)) throw error
    }
  }
}

export const makeWorld = async (dir: string, accounts: number, faults: Faults) => {
  const database = openDatabase(join(dir, 'd1.sqlite'))
  for (const name of readdirSync(MIGRATIONS).sort()) {
    if (name.endsWith('.sql')) database.exec(readFileSync(join(MIGRATIONS, name), 'utf8'))
  }
  const objects = new Map<string, HostedObject>()
  const stubOf = (id: string): unknown =>
    new Proxy(
      {},
      {
        get:
          (_, name) =>
          (...args: unknown[]) =>
            objects.get(id)?.call(String(name), args),
      },
    )
  const secret = 'simulated-secret-'.padEnd(40, 'x')
  const env: Env = {
    DB: d1(database, faults),
    EVIDENCE: r2(join(dir, 'r2'), faults),
    ACCOUNT: { idFromName: (name: string) => name, get: stubOf } as unknown as Env['ACCOUNT'],
    ...{ SPARROW_SECRET: secret, ADMIN_SECRET: secret, JOIN_TOKEN: secret },
  }
  database
    .prepare('INSERT INTO prices (model, effective_from, hit_nano, miss_nano, output_nano) VALUES (?, 0, ?, ?, ?)')
    .run(MODEL, DEFAULT_PRICE.hit, DEFAULT_PRICE.miss, DEFAULT_PRICE.output)
  const context = { waitUntil: () => {}, passThroughOnException: () => {}, props: {} } as unknown as ExecutionContext
  const object = (account: number): DurableObjectStub<AccountObject> =>
    stubOf(accountIdOf(account)) as DurableObjectStub<AccountObject>
  for (let account = 0; account < accounts; account++) {
    const [id, keyId] = [accountIdOf(account), keyIdOf(account)]
    objects.set(id, new HostedObject(env, faults))
    database.prepare('INSERT INTO accounts (id, name, created_at) VALUES (?, ?, 0)').run(id, id)
    database
      .prepare(
        "INSERT INTO api_keys (id, account_id, name, key_hash, family, last_four, created_at) VALUES (?, ?, '', ?, ?, '', 0)",
      )
      .run(keyId, id, keyId, keyId)
    await object(account).open(id)
    await object(account).putKey({ id: keyId, hash: keyId, family: keyId, expiresAt: null, limits: {} })
    await object(account).setLimits({ concurrency: 1_000_000 }, null)
    await object(account).topUp(`top-up-${id}`, topUpOf(account))
  }
  return {
    ...{ env, database, object },
    fetch: async (request: Request): Promise<Response> =>
      worker.fetch(request as Parameters<typeof worker.fetch>[0], env, context) as Promise<Response>,
    /** Lets every object do what its alarm is for. */
    alarms: async (now = Date.now()): Promise<void> => {
      for (const hosted of objects.values()) await hosted.alarm(now)
    },
    addNode: (id: string, publicKey: string): void => {
      database
        .prepare(
          "INSERT INTO nodes (id, address, public_key, model, chat_format, context_tokens, registered_at, heartbeat_at) VALUES (?, '', ?, ?, '', 4096, 0, 0)",
        )
        .run(id, publicKey, MODEL)
    },
  }
}
export type World = Awaited<ReturnType<typeof makeWorld>>
