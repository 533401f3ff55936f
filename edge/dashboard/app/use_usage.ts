// What the page shows of a key, loaded and refreshed together. A failure leaves what is shown.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import type { UsageDaily, UsageList } from '../../../schema/public_answers.ts'
import { type Failure, get, type Result } from './api.ts'
import { type Balance, balanceOf } from './balance.ts'
import { mergePages } from './pages.ts'

export interface Shown {
  readonly balance: Balance
  readonly days: UsageDaily
  readonly requests: Pick<UsageList, 'data' | 'has_more'>
  /** When it was loaded. */
  readonly at: number
}

const loadAll = async (key: string, before: Shown | undefined, signal: AbortSignal): Promise<Result<Shown>> => {
  const [balance, days, requests] = await Promise.all([
    get<unknown>(key, '/user/balance', signal),
    get<UsageDaily>(key, '/v1/usage/daily', signal),
    get<UsageList>(key, '/v1/usage', signal),
  ])
  if (!balance.ok) return balance
  if (!days.ok) return days
  if (!requests.ok) return requests
  const value = { balance: balanceOf(balance.value), days: days.value, at: Date.now() }
  return { ok: true, value: { ...value, requests: mergePages(requests.value, before?.requests) } }
}

const loadOlder = async (key: string, shown: Shown, signal: AbortSignal): Promise<Result<Shown>> => {
  const { data } = shown.requests
  const older = await get<UsageList>(key, `/v1/usage?after=${data.at(-1)?.request_id ?? ''}`, signal)
  if (!older.ok) return older
  const requests = { data: [...data, ...older.value.data], has_more: older.value.has_more }
  return { ok: true, value: { ...shown, requests } }
}

export interface Usage {
  readonly shown: Shown | undefined
  readonly failure: Failure | undefined
  readonly isLoading: boolean
  readonly refresh: () => void
  readonly older: () => void
}

type Load = (before: Shown | undefined, signal: AbortSignal) => Promise<Result<Shown>>

export const useUsage = (key: string): Usage => {
  const [state, setState] = useState<Omit<Usage, 'refresh' | 'older'>>({
    ...{ shown: undefined, failure: undefined, isLoading: true },
  })
  const latest = useRef<Shown>(undefined)
  const running = useRef<AbortController>(undefined)
  const run = useCallback(async (load: Load) => {
    running.current?.abort()
    const mine = new AbortController()
    running.current = mine
    setState((now) => ({ ...now, isLoading: true }))
    const result = await load(latest.current, mine.signal)
    if (mine.signal.aborted) return
    if (result.ok) latest.current = result.value
    setState({ shown: latest.current, failure: result.ok ? undefined : result.error, isLoading: false })
  }, [])
  const refresh = useCallback(() => void run((before, signal) => loadAll(key, before, signal)), [key, run])
  const older = useCallback(
    () => void run((before, signal) => (before ? loadOlder(key, before, signal) : loadAll(key, before, signal))),
    [key, run],
  )
  useEffect(() => {
    refresh()
    return () => running.current?.abort()
  }, [refresh])
  return { ...state, refresh, older }
}
