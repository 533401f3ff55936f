// Applies migrations to a D1 at its socket, in the words of D1's binding. The table that says which is the one of `wrangler d1 migrations`.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { callSocket } from './socket.ts'

interface Statement {
  readonly sql: string
  readonly params?: readonly string[]
}

const answers = z.array(z.object({ results: z.array(z.record(z.string(), z.unknown())) }))
const CREATE = `CREATE TABLE IF NOT EXISTS d1_migrations (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)`

/** All or none. */
const batch = async (socket: string, statements: readonly Statement[]) => {
  const said = await callSocket(socket, '/query?resultsFormat=ARRAY_OF_OBJECTS', JSON.stringify(statements))
  const parsed = answers.safeParse(JSON.parse(said))
  if (!parsed.success) throw new Error(said)
  return parsed.data
}

/** Those in `folder` that were not applied yet, in order, each whole or not at all. Returns their names. */
export const migrate = async (socket: string, folder: string): Promise<readonly string[]> => {
  const [, applied] = await batch(socket, [{ sql: CREATE }, { sql: 'SELECT name FROM d1_migrations' }])
  const known = new Set(applied?.results.map(({ name }) => name))
  const files = readdirSync(folder).filter((name) => name.endsWith('.sql') && !known.has(name))
  for (const name of files.sort()) {
    const statements = readFileSync(join(folder, name), 'utf8').split('--> statement-breakpoint')
    const note: Statement = { sql: 'INSERT INTO d1_migrations (name) VALUES (?)', params: [name] }
    await batch(socket, [...statements.map((sql) => ({ sql })), note]).catch((error: Error) => {
      throw new Error(`migration ${name} could not be applied: ${error.message}`)
    })
  }
  return files
}
