// The node's log: one JSON object a line on stderr, fields instead of sentences. Prompts, answers and keys never go in.

type Level = 'info' | 'warn' | 'error'

export const log = (level: Level, event: string, fields: Readonly<Record<string, unknown>> = {}): void => {
  process.stderr.write(`${JSON.stringify({ at: new Date().toISOString(), level, event, ...fields })}\n`)
}

/** What went wrong, with the cause that fetch hides one level down. */
export const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  return error.cause === undefined ? error.message : `${error.message}: ${reasonOf(error.cause)}`
}
