// `GET /user/balance` in whole nano-dollars.
import { parseUsd } from '../../../schema/money.ts'

export interface Balance {
  readonly nano: number
  /** Of it, held by requests under way. */
  readonly heldNano: number
  /** False: all that is left is held by requests under way, or nothing is left. */
  readonly isAvailable: boolean
}

export const balanceOf = (answer: unknown): Balance => {
  const { is_available: isAvailable, balance_infos: infos } = answer as {
    is_available: boolean
    balance_infos: { total_balance: string; held_balance?: string }[]
  }
  const nanoOf = (usd = ''): number => parseUsd(usd) ?? 0
  return { nano: nanoOf(infos[0]?.total_balance), heldNano: nanoOf(infos[0]?.held_balance), isAvailable }
}
