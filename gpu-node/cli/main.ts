// npm run engine -- COMMAND ...: the engine without a node around it. A command is one file here and its line below.
import { StartError } from '../config.ts'
import { EngineError } from '../engine/engine.ts'
import { CliError, type Command } from './command.ts'
import { logits } from './logits.ts'

const COMMANDS: Readonly<Record<string, Command>> = { logits }

const USAGE = ['usage: npm run engine -- COMMAND', ...Object.values(COMMANDS).map(({ usage }) => `  ${usage}`)].join(
  '\n',
)

/** What the user can mend as one line; undefined for a fault of ours. */
const oneLine = (error: unknown): string | undefined => {
  if (!(error instanceof Error)) return undefined
  const misused = 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS_')
  if (!misused && !(error instanceof CliError || error instanceof EngineError || error instanceof StartError))
    return undefined
  return error.message.split('\n')[0]
}

const answer = async ([name = '', ...args]: readonly string[]): Promise<string> => {
  if (name === '--help' || name === 'help') return USAGE
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (command && args.includes('--help')) return `usage: npm run engine -- ${command.usage}`
  if (command) return command.run(args)
  const known = Object.keys(COMMANDS).join(', ')
  throw new CliError(name ? `unknown command '${name}'; known: ${known}` : `a command is needed; known: ${known}`)
}

export interface Outcome {
  /** 2: something the user can mend, said in one line. */
  readonly code: 0 | 2
  readonly text: string
}

export const runCli = async (args: readonly string[]): Promise<Outcome> => {
  try {
    return { code: 0, text: await answer(args) }
  } catch (error) {
    const line = oneLine(error)
    if (line === undefined) throw error
    return { code: 2, text: `engine: ${line}` }
  }
}

if (process.argv[1] === import.meta.filename) {
  const { code, text } = await runCli(process.argv.slice(2))
  if (code === 0) console.log(text)
  else console.error(text)
  process.exitCode = code
}
