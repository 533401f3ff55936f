// The price list as an account object keeps it: read from D1 now and then, so that admission awaits no database.
import { drizzle } from 'drizzle-orm/d1'
import { prices } from '../schema/db.ts'
import { PRICE_NOTICE_MS } from '../schema/limits.ts'
import type { PriceInForce } from './account/holds.ts'

/** Then it is asked for anew; D1 may fail meanwhile. */
const FRESH_MS = 30_000
/** Then nothing is billed by it: ends before a price that was set or withdrawn counts, whichever isolate's clock it goes by. */
const USABLE_MS = PRICE_NOTICE_MS - 10_000
/** A model may have got its price a moment ago; one that never has any must not cost a query each time. */
const UNKNOWN_MS = 1_000

type Row = typeof prices.$inferSelect

export interface PriceList {
  readonly readAt: number
  /** The newest row in effect at `now`; `undefined` for a model that is not served. */
  current(model: string, now: number): PriceInForce | undefined
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
      return row && { hit: row.hitNano, miss: row.missNano, output: row.outputNano, from: row.effectiveFrom }
    },
  }
}

const isUsable = ({ readAt }: PriceList): boolean => Date.now() - readAt < USABLE_MS

/** `known` while it is fresh, and a little longer when D1 cannot be read; a model missing from it is looked up anew at once. */
export const pricesFor = async (
  database: D1Database,
  known: PriceList | undefined,
  model: string,
): Promise<PriceList> => {
  const now = Date.now()
  if (known && now - known.readAt < (known.current(model, now) ? FRESH_MS : UNKNOWN_MS)) return known
  try {
    const read = priceList(await drizzle(database).select().from(prices), now)
    if (isUsable(read)) return read
    throw new Error('D1 gave the prices too late')
  } catch (error) {
    if (known && isUsable(known)) return known
    throw error
  }
}
