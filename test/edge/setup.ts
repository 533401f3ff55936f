// Every test file starts on a migrated, otherwise empty database; and no account's alarm runs but when a test says so.
import { applyD1Migrations, type D1Migration, runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import type { Env as WorkerEnv } from '../../edge/env.ts'
import { ALARM_LATE_MS } from './world.ts'

declare global {
  namespace Cloudflare {
    interface Env {
      DB: D1Database
      SPARROW_SECRET: string
      ADMIN_SECRET: string
      JOIN_TOKEN: string
      NODE_ADDRESSES: Record<string, string>
      TEST_MIGRATIONS: D1Migration[]
    }
  }
}

await applyD1Migrations(env.DB, env.TEST_MIGRATIONS)

const { ACCOUNT } = env as unknown as WorkerEnv
await runInDurableObject(ACCOUNT.get(ACCOUNT.idFromName('alarms')), (_object, { storage }) => {
  const shared = Object.getPrototypeOf(storage) as DurableObjectStorage
  const setAlarm = shared.setAlarm
  shared.setAlarm = function (time, options) {
    return setAlarm.call(this, Number(time) + ALARM_LATE_MS, options)
  }
})
