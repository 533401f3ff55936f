// Rows of an account's ledger or usage into a CSV file, all of them or those of a time, newest first: integers in nano-dollars, what is an
// amount in dollars beside them, times in UTC.
import { closeSync, openSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { getTableColumns } from 'drizzle-orm'
import { type Cell, csvLines } from '../schema/csv.ts'
import { ledger, usage } from '../schema/db.ts'
import { formatUsd } from '../schema/money.ts'
import { dollarsOf, isAmount, isTime } from './admin_columns.ts'

const TABLES = {
  ledger: { columns: Object.keys(getTableColumns(ledger)), next: 'seq', sum: 'amountNano' },
  usage: { columns: Object.keys(getTableColumns(usage)), next: 'requestId', sum: 'chargedNano' },
} as const

export type Row = Readonly<Record<string, Cell>>

const headOf = (columns: readonly string[]): string[] =>
  columns.flatMap((name) => (isAmount(name) ? [name, dollarsOf(name)] : [name]))

const cellsOf = (columns: readonly string[], row: Row): Cell[] =>
  columns.flatMap((name) => {
    const value = row[name] ?? null
    if (typeof value !== 'number') return [value]
    if (isAmount(name)) return [value, formatUsd(value)]
    return [isTime(name, value) ? new Date(value).toISOString() : value]
  })

interface Written {
  readonly file: string
  readonly rows: number
  readonly sumNano: number
}

/** Where the rows go until they are whole: beside a file or its link's target; into what is no file (`/dev/stdout`, a pipe) itself. */
const placeOf = (file: string): { readonly part: string; readonly whole: string } => {
  const there = statSync(file, { throwIfNoEntry: false })
  if (there && !there.isFile()) return { part: file, whole: file }
  const whole = there ? realpathSync(file) : file
  return { part: `${whole}.part`, whole }
}

/** `page` gives the rows behind `before`, none at the end. The file is there once it is whole. */
export const writeRows = async (
  table: keyof typeof TABLES,
  file: string,
  page: (before?: string) => Promise<readonly Row[]>,
): Promise<Written> => {
  const { columns, next, sum } = TABLES[table]
  const { part, whole } = placeOf(file)
  const open = openSync(part, 'w')
  let rows = 0
  let sumNano = 0
  try {
    writeFileSync(open, csvLines([headOf(columns)]))
    for (let found = await page(); found.length > 0; found = await page(String(found.at(-1)?.[next]))) {
      writeFileSync(open, csvLines(found.map((row) => cellsOf(columns, row))))
      rows += found.length
      sumNano += found.reduce((total, row) => total + Number(row[sum]), 0)
    }
    if (part !== whole) renameSync(part, whole)
  } catch (error) {
    if (part !== whole) rmSync(part, { force: true })
    throw error
  } finally {
    closeSync(open)
  }
  return { file, rows, sumNano }
}
