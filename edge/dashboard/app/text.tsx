// Amounts, counts and times as text: money exact to the nano-dollar, times in the reader's zone.
import { formatUsd } from '../../../schema/money.ts'

/** `$0.000001234`; the nine places in threes and the zeros behind the last one pale, all by style alone: a copy is the plain number. */
export const Usd = ({ nano }: { nano: number }) => {
  const [whole = '', places = ''] = formatUsd(Math.abs(nano)).split('.')
  const shown = places.replace(/0+$/, '').length
  return (
    <span class="usd">
      {nano < 0 ? '−' : ''}${Number(whole).toLocaleString('en-US')}.
      {[0, 3, 6].map((at) => {
        const cut = Math.min(3, Math.max(0, shown - at))
        const three = places.slice(at, at + 3)
        return (
          <span key={at} class="three">
            {three.slice(0, cut)}
            <span class="pale">{three.slice(cut)}</span>
          </span>
        )
      })}
    </span>
  )
}

/** Without the zeros behind the last place: `$0.29372`. */
export const usdText = (nano: number): string =>
  `${nano < 0 ? '−' : ''}$${formatUsd(Math.abs(nano)).replace(/\.?0+$/, '')}`

export const countText = (count: number): string => count.toLocaleString('en-US')

const PARTS = { month: 'short', day: 'numeric', hour: 'numeric', minute: '2-digit', second: '2-digit' } as const
const MOMENT = new Intl.DateTimeFormat(undefined, PARTS)
const LONG_AGO = new Intl.DateTimeFormat(undefined, { ...PARTS, year: 'numeric' })

const momentText = (at: number): string =>
  (new Date(at).getFullYear() === new Date().getFullYear() ? MOMENT : LONG_AGO).format(at)

export const When = ({ at }: { at: number }) => (
  <time dateTime={new Date(at).toISOString()} title={new Date(at).toISOString()}>
    {momentText(at)}
  </time>
)

const DAY = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric', timeZone: 'UTC' })

/** A UTC day, `2026-01-31`. */
export const dayText = (date: string): string => DAY.format(Date.parse(date))

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit', second: '2-digit' })
export const clockText = (at: number): string => CLOCK.format(at)

export const zoneText = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone
