// What a model name stands for: itself or, as an alias, a model that live nodes serve; and in which chat format they serve it.
// An isolate remembers the nodes' models for some seconds, so that only its first request waits for the database.
import type { ChatFormat } from '../schema/chat/chat_format.ts'
import { DEFAULT_CHAT_FORMAT } from '../schema/chat/index.ts'
import { fail, ok, type Result } from '../schema/errors.ts'
import { NODE_STALE_MS } from '../schema/limits.ts'
import { aliasesOf, type Env } from './env.ts'
import { log, reasonOf } from './log.ts'
import { formatNamed } from './templates.ts'

/** Served from memory for so long; asked for again at once, but not more often than `RETRY_MS`, for a name that is not there. */
const FRESH_MS = 5_000
const RETRY_MS = 250

const SERVED = `
  SELECT model, chat_format AS chatFormat FROM nodes WHERE draining = 0 AND heartbeat_at > ?1
  GROUP BY model, chat_format ORDER BY count(*) DESC, model, chat_format`

interface Row {
  readonly model: string
  readonly chatFormat: string
}

/** Values only: workerd lets no request wait for another's promise. */
let known: { readonly at: number; readonly rows: readonly Row[] } = { at: 0, rows: [] }

const refresh = async (database: D1Database): Promise<void> => {
  try {
    const session = database.withSession('first-unconstrained')
    const { results } = await session
      .prepare(SERVED)
      .bind(Date.now() - NODE_STALE_MS)
      .all<Row & Record<string, unknown>>()
    known = { at: Date.now(), rows: results }
  } catch (error) {
    log('error', 'models_not_read', { error: reasonOf(error) })
  }
}

export interface ServedModel {
  /** Absent: the name as the client gave it. */
  readonly model: string | undefined
  readonly format: ChatFormat
  /** What the alias says about thinking. */
  readonly thinks: boolean
}

/** A model that nodes serve wins over an alias of its name; an alias without a model stands for the one most nodes serve. */
const find = (env: Env, name: string): { row: Row; thinks: boolean } | undefined => {
  const direct = known.rows.find(({ model }) => model === name)
  if (direct) return { row: direct, thinks: false }
  const aliases = aliasesOf(env)
  const alias = Object.hasOwn(aliases, name) ? aliases[name] : undefined
  const row = alias && known.rows.find(({ model }) => alias.model === undefined || alias.model === model)
  return row && { row, thinks: alias?.thinking ?? false }
}

/** Error: no_node, where nothing is behind an alias now, or its chat template cannot be had. A name that nobody knows is left as it is. */
export const servedModel = async (
  env: Env,
  context: Pick<ExecutionContext, 'waitUntil'>,
  name: string | undefined,
): Promise<Result<ServedModel>> => {
  const unknown = { model: undefined, format: DEFAULT_CHAT_FORMAT, thinks: false }
  if (name === undefined) return ok(unknown)
  let found = find(env, name)
  const age = Date.now() - known.at
  if (!found && age > RETRY_MS) {
    await refresh(env.DB)
    found = find(env, name)
  } else if (age > FRESH_MS) {
    // One of those that find it old asks anew.
    known = { ...known, at: Date.now() }
    context.waitUntil(refresh(env.DB))
  }
  if (!found) return Object.hasOwn(aliasesOf(env), name) ? fail('no_node') : ok(unknown)
  const { row, thinks } = found
  const format = await formatNamed(env.DB, row.chatFormat)
  return format ? ok({ model: row.model, format, thinks }) : fail('no_node')
}
