// A bar a day, in plain SVG: one stop for the keyboard, whose arrow keys go from day to day; the table below it says the same.
import type { TargetedKeyboardEvent } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { shortCount, ticksOf } from './scale.ts'
import { KIND_TEXT, type Measure, type Part, partsOf } from './series.ts'
import { countText, dayText, usdText } from './text.tsx'
import type { Totals } from './totals.ts'

export interface Day {
  readonly date: string
  readonly totals: Totals
}

interface Frame {
  readonly width: number
  readonly left: number
  readonly measure: Measure
  readonly ticks: readonly number[]
}

const HEIGHT = 220
const TOP = 10
const BOTTOM = 24
const CHARACTER = 7

const amountText = (amount: number, measure: Measure): string =>
  measure === 'spend' ? usdText(amount) : countText(amount)
const tickText = (amount: number, measure: Measure): string =>
  measure === 'spend' ? usdText(amount) : shortCount(amount)

export const dayWords = ({ date, totals }: Day, measure: Measure): string => {
  const parts = partsOf(totals, measure).filter(({ amount }) => amount > 0)
  const words = parts.map(({ kind, amount }) => `${KIND_TEXT[kind]} ${amountText(amount, measure)}`)
  return `${dayText(date)}: ${words.length > 0 ? words.join(', ') : 'nothing'}`
}

const yOf = (amount: number, { ticks }: Frame): number =>
  HEIGHT - BOTTOM - (amount / (ticks.at(-1) ?? 1)) * (HEIGHT - BOTTOM - TOP)

const Grid = ({ frame }: { frame: Frame }) => (
  <g class="grid">
    {frame.ticks.map((tick) => (
      <g key={tick}>
        <line x1={frame.left} x2={frame.width} y1={yOf(tick, frame)} y2={yOf(tick, frame)} />
        <text x={frame.left - 8} y={yOf(tick, frame) + 4} text-anchor="end">
          {tickText(tick, frame.measure)}
        </text>
      </g>
    ))}
  </g>
)

const stacked = (parts: readonly Part[]): (Part & { readonly below: number })[] => {
  let below = 0
  return parts.map((part) => {
    const placed = { ...part, below }
    below += part.amount
    return placed
  })
}

const Bar = ({ day, x, width, frame }: { day: Day; x: number; width: number; frame: Frame }) => (
  <g>
    {stacked(partsOf(day.totals, frame.measure))
      .filter(({ amount }) => amount > 0)
      .map(({ kind, amount, below }) => {
        const top = yOf(below + amount, frame)
        // However small, it is seen.
        const height = Math.max(1, yOf(below, frame) - top)
        return <rect key={kind} class={kind} x={x + width * 0.14} y={top} width={width * 0.72} height={height} />
      })}
  </g>
)

/** Pixels that the element has, so that text in the drawing keeps its size. */
const useWidth = () => {
  const ref = useRef<HTMLDivElement>(null)
  const [width, setWidth] = useState(0)
  useEffect(() => {
    const element = ref.current
    if (!element) return
    const observer = new ResizeObserver(() => setWidth(element.clientWidth))
    observer.observe(element)
    return () => observer.disconnect()
  }, [])
  return [ref, width] as const
}

/** Places in `count` days that the keys lead to. */
const moved = (key: string, at: number, count: number): number | undefined => {
  const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: count - 1 }[key]
  return to === undefined ? undefined : Math.min(count - 1, Math.max(0, to))
}

interface ChartProps {
  readonly days: readonly Day[]
  readonly measure: Measure
  readonly at: number
  readonly onAt: (at: number) => void
}

const LABEL_WIDTH = 64

export const Chart = ({ days, measure, at, onAt }: ChartProps) => {
  const [ref, width] = useWidth()
  const most = Math.max(
    ...days.map(({ totals }) => partsOf(totals, measure).reduce((sum, { amount }) => sum + amount, 0)),
  )
  const ticks = ticksOf(most)
  const left = 16 + CHARACTER * Math.max(...ticks.map((tick) => tickText(tick, measure).length))
  const frame: Frame = { width, left, measure, ticks }
  const step = Math.max(0, width - left) / days.length
  const every = Math.max(1, Math.ceil(LABEL_WIDTH / Math.max(1, step)))
  const onKeyDown = (event: TargetedKeyboardEvent<HTMLDivElement>): void => {
    const to = moved(event.key, at, days.length)
    if (to === undefined) return
    event.preventDefault()
    onAt(to)
  }
  const day = days[at]
  return (
    <div
      ref={ref}
      class="chart"
      role="slider"
      tabIndex={0}
      aria-label={`Day, by ${measure}`}
      aria-valuemin={1}
      aria-valuemax={days.length}
      aria-valuenow={at + 1}
      aria-valuetext={day && dayWords(day, measure)}
      onKeyDown={onKeyDown}
    >
      {width > 0 && (
        <svg width={width} height={HEIGHT} aria-hidden="true">
          <Grid frame={frame} />
          {days.map((one, i) => (
            <g key={one.date} class={i === at ? 'day chosen' : 'day'} onPointerEnter={() => onAt(i)}>
              <rect class="back" x={left + i * step} y={TOP} width={step} height={HEIGHT - BOTTOM - TOP} />
              <Bar {...{ day: one, x: left + i * step, width: step, frame }} />
              {(days.length - 1 - i) % every === 0 && left + i * step + step / 2 - LABEL_WIDTH / 2 > 0 && (
                <text x={Math.min(left + (i + 0.5) * step, width - 20)} y={HEIGHT - 6} text-anchor="middle">
                  {dayText(one.date)}
                </text>
              )}
            </g>
          ))}
        </svg>
      )}
    </div>
  )
}
