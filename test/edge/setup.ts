// Every test file starts on a migrated, otherwise empty database.
import { applyD1Migrations, type D1Migration } from 'cloudflare:test'
import { env } from 'cloudflare:workers'

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
