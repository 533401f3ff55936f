// Chat templates that nodes registered: kept in D1 under a hash of their source, read once an isolate.
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import type { ChatFormat } from '../schema/chat/chat_format.ts'
import { chatFormatByName } from '../schema/chat/index.ts'
import { templateFormat } from '../schema/chat/template_format.ts'
import { type TemplateSource, templateName, templateSchema } from '../schema/chat/template_source.ts'
import { chatTemplates } from '../schema/db.ts'
import { log, reasonOf } from './log.ts'

/** More than a deployment serves at a time; the oldest go first. */
const FORMATS_MAX = 16
const formats = new Map<string, ChatFormat>()

export const keepTemplate = async (database: D1Database, source: TemplateSource): Promise<void> => {
  const row = { name: templateName(source), source: JSON.stringify(source), createdAt: Date.now() }
  await drizzle(database).insert(chatTemplates).values(row).onConflictDoNothing()
}

const read = async (database: D1Database, name: string): Promise<ChatFormat | undefined> => {
  const rows = await drizzle(database).select().from(chatTemplates).where(eq(chatTemplates.name, name))
  return rows[0] && templateFormat(templateSchema.parse(JSON.parse(rows[0].source)))
}

/** A format of the tree's own or a node's template; `undefined` where neither can be had now. */
export const formatNamed = async (database: D1Database, name: string): Promise<ChatFormat | undefined> => {
  const known = chatFormatByName(name) ?? formats.get(name)
  if (known) return known
  try {
    const format = await read(database, name)
    if (!format) return undefined
    formats.set(name, format)
    for (const oldest of formats.keys()) {
      if (formats.size <= FORMATS_MAX) break
      formats.delete(oldest)
    }
    return format
  } catch (error) {
    log('error', 'template_not_read', { name, error: reasonOf(error) })
    return undefined
  }
}
