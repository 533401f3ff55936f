// What the command line prints of an answer: `--json` as the API gave it, else lines and tables for people.
import stringWidth from 'string-width'
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

/** Of tables too wide to be read: what is shown of a row, and what it is called. */
const SHOWN: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  usage: {
    ...{ settledAt: 'settledAt', requestId: 'requestId', model: 'model' },
    ...{ hitTokens: 'cached', missTokens: 'uncached', outputTokens: 'output', chargedNano: 'chargedNano' },
  },
}

const shown = (columns: Readonly<Record<string, string>>, row: Readonly<Record<string, unknown>>): object =>
  Object.fromEntries(Object.entries(columns).map(([name, as]) => [as, row[name]]))

/** What others named must not move the cursor. */
const still = (text: string): string =>
  text.replace(/[\p{Cc}\p{Cf}]/gu, (c) => `\\u{${c.codePointAt(0)?.toString(16)}}`)

/** Columns two blanks apart, as wide as they must be; numbers and amounts at their right. */
const table = (rows: readonly Readonly<Record<string, unknown>>[]): string => {
  const names = [...new Set(rows.flatMap(Object.keys))]
  const columns = names.map((name) => {
    const cells = [name, ...rows.map((row) => still(String(row[name] ?? '-')))]
    const width = Math.max(...cells.map((cell) => stringWidth(cell)))
    const isNumber = cells.slice(1).every((cell) => /^(-|-?\d+(\.\d+)?)$/.test(cell))
    const blanks = (cell: string): string => ' '.repeat(width - stringWidth(cell))
    return cells.map((cell) => (isNumber ? blanks(cell) + cell : cell + blanks(cell)))
  })
  const lines = Array.from({ length: rows.length + 1 }, (_, i) =>
    columns
      .map((cells) => cells[i])
      .join('  ')
      .trimEnd(),
  )
  return lines.join('\n')
}

/** `command`: whose answer it is. */
export const print = (answer: object, asJson: boolean, command: string): void => {
  if (asJson) console.log(JSON.stringify(answer))
  else if ('data' in answer && Array.isArray(answer.data)) {
    const columns = SHOWN[command]
    const rows = columns ? answer.data.map((row) => shown(columns, row)) : answer.data
    console.log(rows.length > 0 ? table(rows.map(readable)) : 'none')
    if (answer.data.length === ADMIN_ROWS_MAX) console.error(`Only ${ADMIN_ROWS_MAX} rows are shown.`)
    if (columns && rows.length > 0) console.error('All columns: --json, or --out FILE.')
  } else if ('findings' in answer && Array.isArray(answer.findings)) {
    const { findings, ...rest } = answer
    console.log(
      Object.entries(readable(rest))
        .map(([name, value]) => `${name}: ${value}`)
        .join('  '),
    )
    if (findings.length > 0) console.log(table(findings))
  } else {
    for (const [name, value] of Object.entries(readable(answer))) console.log(still(`${name}: ${value}`))
  }
}
