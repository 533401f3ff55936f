// The edge's log: one JSON object a line. Whatever an error's text drags along (a failed statement with its parameters, a
// piece of a body, a key, a signature) is cut here, so no other file may write to the console.

const REASON_LENGTH = 200

/** Keys, tokens, signatures, hashes: any run of so many characters that could be one. */
const SECRET = /\bsk-[0-9a-zA-Z]+|\bBearer\s+\S+|[\w-]{40,}/gi

/** What failed, without values. Drizzle's message holds the statement and all its parameters; its cause names the fault. */
export const reasonOf = (failure: unknown): string => {
  if (!(failure instanceof Error)) return typeof failure
  const root = failure.cause instanceof Error ? failure.cause : failure
  // A syntax error of JSON quotes the text it stumbled on.
  const text = root instanceof SyntaxError ? 'not valid JSON' : root.message
  return `${root.name}: ${text.replace(/["'`].*["'`]/gs, '"..."').replace(SECRET, '...')}`.slice(0, REASON_LENGTH)
}

/** Where an error was thrown: file and line of each frame, without its message. */
export const framesOf = (failure: unknown): string[] =>
  failure instanceof Error
    ? (failure.stack ?? '')
        .split('\n')
        .filter((line) => /^\s+at /.test(line))
        .slice(0, 8)
        .map((line) => line.trim())
    : []

export const log = (
  level: 'info' | 'warn' | 'error',
  event: string,
  fields: Readonly<Record<string, unknown>> = {},
): void => console[level](JSON.stringify({ event, ...fields }))
