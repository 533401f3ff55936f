// The price list as an account object keeps it: read from D1, fresh for a minute, so that admission awaits no database.
import { drizzle } from 'drizzle-orm/d1'
import { prices } from '../schema/db.ts'
import type { Price } from '../schema/money.ts'

const FRESH_MS = 60_000

type Row = typeof prices.$inferSelect

export interface PriceList {
  readonly readAt: number
  /** The newest row in effect at `now`; `undefined` for a model that is not served. */
  current(model: string, now: number): Price | undefined
  /** Models with a price in effect, by name. */
  models(now: number): string[]
}

const priceList = (rows: readonly Row[], readAt: number): PriceList => {
  const newest = (model: string, now: number): Row | undefined =>
    rows
      .filter((row) => row.model === model && row.effectiveFrom <= now)
      .reduce<Row | undefined>((best, row) => (!best || row.effectiveFrom > best.effectiveFrom ? row : best), undefined)
  return {
    readAt,
    current: (model, now) => {
      const row = newest(model, now)
      return row && { hit: row.hitNano, miss: row.missNano, output: row.outputNano }
    },
    models: (now) => [...new Set(rows.filter((row) => row.effectiveFrom <= now).map((row) => row.model))].sort(),
  }
}

/** `known` while it is fresh, and also when D1 cannot be read; a model missing from it is looked up anew at once. */
export const pricesFor = async (database: D1Database, known: PriceList | undefined): Promise<PriceList> => {
  const now = Date.now()
  if (known && now - known.readAt < FRESH_MS && known.models(now).length > 0) return known
  try {
    return priceList(await drizzle(database).select().from(prices), now)
  } catch (error) {
    if (known) return known
    throw error
  }
}
