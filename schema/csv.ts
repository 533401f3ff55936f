// Rows as CSV (RFC 4180).

export type Cell = string | number | null

/** A spreadsheet would run a text that begins like a formula; an amount below zero is none. */
const harmless = (text: string): string =>
  /^[=+\-@\t\r]/.test(text) && !/^-\d+(\.\d+)?$/.test(text) ? `'${text}` : text

const cellText = (cell: Cell): string => {
  if (typeof cell !== 'string') return cell === null ? '' : String(cell)
  const text = harmless(cell)
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

export const csvLines = (rows: readonly (readonly Cell[])[]): string =>
  rows.map((row) => `${row.map(cellText).join(',')}\r\n`).join('')

export const csv = (head: readonly string[], rows: readonly (readonly Cell[])[]): string => csvLines([head, ...rows])
