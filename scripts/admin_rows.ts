// Rows of an account's ledger or usage into a CSV file, all of them or those of a time, newest first: integers in nano-dollars, what is an
// amount in dollars beside them, times in UTC.
import { appendFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
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

/** `page` gives the rows behind `before`, none at the end. The file is there once it is whole. */
export const writeRows = async (
  table: keyof typeof TABLES,
  file: string,
  page: (before?: string) => Promise<readonly Row[]>,
): Promise<Written> => {
  const { columns, next, sum } = TABLES[table]
  const part = `${file}.part`
  writeFileSync(part, csvLines([headOf(columns)]))
  let rows = 0
  let sumNano = 0
  try {
    for (let found = await page(); found.length > 0; found = await page(String(found.at(-1)?.[next]))) {
      appendFileSync(part, csvLines(found.map((row) => cellsOf(columns, row))))
      rows += found.length
      sumNano += found.reduce((total, row) => total + Number(row[sum]), 0)
    }
    renameSync(part, file)
  } catch (error) {
    rmSync(part, { force: true })
    throw error
  }
  return { file, rows, sumNano }
}
