// Everything the account object keeps, in one value. Synchronous: callers decide and write without interleaving.
import { holdStore, retryStore } from './holds.ts'
import { keyStore } from './keys.ts'
import { moneyStore } from './money.ts'
import { outcomeStore } from './outcomes.ts'
import { migrate } from './tables.ts'
import { trailStore } from './trails.ts'

export const accountStore = (storage: DurableObjectStorage) => {
  migrate(storage)
  const { sql } = storage
  const holds = holdStore(sql)
  return {
    /** All of `work` or nothing. */
    transaction: <T>(work: () => T): T => {
      try {
        return storage.transactionSync(work)
      } catch (error) {
        holds.recountHolds()
        throw error
      }
    },
    ...keyStore(sql),
    ...holds,
    ...retryStore(sql),
    ...moneyStore(sql),
    ...outcomeStore(sql),
    ...trailStore(sql),
  }
}

export type AccountStore = ReturnType<typeof accountStore>
