// Applies migrations to a D1 at its socket, in the words of D1's binding. The table that says which is the one of `wrangler d1 migrations`.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { parseJson } from '../../schema/text.ts'
import { callSocket } from './socket.ts'

interface Statement {
  readonly sql: string
  readonly params?: readonly string[]
}

const answers = z.array(z.object({ results: z.array(z.record(z.string(), z.unknown())) }))
const CREATE = `CREATE TABLE IF NOT EXISTS d1_migrations (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)`

const RESTORE = 'README, "Back up", says how to restore it.'

/** All or none. Of a damaged file D1 says no JSON. */
const batch = async (socket: string, statements: readonly Statement[]) => {
  const said = await callSocket(socket, '/query?resultsFormat=ARRAY_OF_OBJECTS', JSON.stringify(statements))
  const json = parseJson(said)
  const parsed = answers.safeParse(json)
  if (!parsed.success) throw new Error(`D1 cannot be used: ${said}${json === undefined ? `. ${RESTORE}` : ''}`)
  return parsed.data
}

/** Whether keys were handed out or accounts used on this state: D1 came before either. */
export const hasBooks = (stateDir: string): boolean => {
  const objects = join(stateDir, 'd1', 'v3', 'do')
  const files = existsSync(objects) ? readdirSync(objects, { recursive: true }).map(String) : []
  return existsSync(join(stateDir, 'api_key')) || files.some((name) => /[0-9a-f]{64}\.sqlite$/.test(name))
}

/**
 * Those in `folder` that were not applied yet, in order, each whole or not at all. Returns their names. Where there are `books`, an empty
 * database is not the one they are in, and stays empty.
 */
export const migrate = async (socket: string, folder: string, books = false): Promise<readonly string[]> => {
  const [, applied] = await batch(socket, [{ sql: CREATE }, { sql: 'SELECT name FROM d1_migrations' }])
  const known = new Set(applied?.results.map(({ name }) => name))
  if (books && known.size === 0)
    throw new Error(`D1 is empty, though keys or accounts were made: its file is lost. ${RESTORE}`)
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
