// drizzle-kit reads this: tables in, migrations out (`npm run migrations`).
import type { Config } from 'drizzle-kit'

export const config: Config = { dialect: 'sqlite', schema: './schema/db.ts', out: './schema/migrations' }
export default config
