// What a sub-command of `npm run engine` is, and the readers its options share.
import { statSync } from 'node:fs'

/** Something the user can mend; `message` says how, in one line. */
export class CliError extends Error {}

export interface Command {
  /** Behind `npm run engine -- `. */
  readonly usage: string
  /** What to print. Errors: CliError, or the EngineError of a checkpoint that cannot be used. */
  run(args: readonly string[]): Promise<string>
}

export const integerOption = (name: string, text: string, least: number): number => {
  const value = Number(text)
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < least)
    throw new CliError(`--${name}: '${text}' is no whole number from ${least}`)
  return value
}

export const directoryOption = (name: string, path: string | undefined): string => {
  if (!path) throw new CliError(`--${name} is needed`)
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory())
    throw new CliError(`--${name}: no such directory: ${path}`)
  return path
}
