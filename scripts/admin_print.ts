// What the command line prints of an answer: `--json` as the API gave it, else lines and tables for people.
import { ADMIN_ROWS_MAX } from '../schema/limits.ts'
import { formatUsd } from '../schema/money.ts'
import { dollarsOf, isAmount, isTime } from './admin_columns.ts'

/** Money in dollars, each in one unit whatever its size; times as options take them; within limits as well. */
const readable = (row: object): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(row).map(([name, value]) => {
      if (Array.isArray(value)) return [name, value.join(',')]
      if (typeof value === 'object' && value !== null) return [name, inOneCell(value)]
      if (typeof value !== 'number') return [name, value]
      if (isTime(name, value)) return [name, new Date(value).toISOString()]
      return isAmount(name) ? [dollarsOf(name), formatUsd(value)] : [name, value]
    }),
  )

const inOneCell = (value: object): string =>
  Object.entries(readable(value))
    .map(([name, of]) => `${name}=${of}`)
    .join(' ')

export const print = (answer: object, asJson: boolean): void => {
  if (asJson) console.log(JSON.stringify(answer))
  else if ('data' in answer && Array.isArray(answer.data)) {
    console.table(answer.data.map(readable))
    if (answer.data.length === ADMIN_ROWS_MAX) console.error(`Only ${ADMIN_ROWS_MAX} rows are shown.`)
  } else if ('findings' in answer && Array.isArray(answer.findings)) {
    const { findings, ...rest } = answer
    console.log(
      Object.entries(readable(rest))
        .map(([name, value]) => `${name}: ${value}`)
        .join('  '),
    )
    if (findings.length > 0) console.table(findings)
  } else {
    for (const [name, value] of Object.entries(readable(answer))) console.log(`${name}: ${value}`)
  }
}
