// What a column of the admin API holds, by its name: an amount, a moment, or neither.

/** Of a token: in nano-dollars, as `price set` takes them. */
const PRICES: readonly string[] = ['hitNano', 'missNano', 'outputNano']

export const isAmount = (name: string): boolean => name.endsWith('Nano') && !PRICES.includes(name)

/** What an amount is called in dollars. */
export const dollarsOf = (name: string): string => name.replace(/Nano$/, 'Usd')

/** `createdAt`, `effectiveFrom`, and `at` and `until` alone: Unix milliseconds. The API takes numbers that are no time of any calendar. */
export const isTime = (name: string, value: number): boolean =>
  /(At|From)$|^(at|until)$/.test(name) && Math.abs(value) <= 8.64e15
