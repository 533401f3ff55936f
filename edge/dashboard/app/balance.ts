// `GET /user/balance` in whole nano-dollars.
import { parseUsd } from '../../../schema/money.ts'

export interface Balance {
  readonly nano: number
  /** False: all that is left is held by requests under way, or nothing is left. */
  readonly isAvailable: boolean
}

export const balanceOf = (answer: unknown): Balance => {
  const { is_available: isAvailable, balance_infos: infos } = answer as {
    is_available: boolean
    balance_infos: { total_balance: string }[]
  }
  return { nano: parseUsd(infos[0]?.total_balance ?? '') ?? 0, isAvailable }
}
