// Options of a bench: one that is unknown, or no number where the default is one, ends it in a line before anything runs.
import { type ParseArgsConfig, parseArgs } from 'node:util'

const NUMBER = /^\d+(\.\d+)?$/

/** `bench`: its name behind `bench:`. */
export const optionsOf = <const T extends NonNullable<ParseArgsConfig['options']>>(bench: string, options: T) => {
  try {
    const { values } = parseArgs({ options })
    for (const [name, value] of Object.entries(values)) {
      const isNumber = NUMBER.test(String(options[name]?.default))
      if (isNumber && !NUMBER.test(String(value))) throw new Error(`--${name}: '${value}' is no number`)
    }
    return values
  } catch (error) {
    console.error(`bench:${bench}: ${(error as Error).message}`)
    return process.exit(2)
  }
}
