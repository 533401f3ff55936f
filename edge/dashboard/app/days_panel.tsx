// Spend or tokens by day: the chart, the day it points at in exact figures, and the same as a table.
import { useState } from 'preact/hooks'
import type { UsageDaily } from '../../../schema/public_answers.ts'
import { Chart, type Day } from './chart.tsx'
import { daysCsv } from './csv.ts'
import { CsvButton } from './download.tsx'
import { KIND_TEXT, type Measure, partsOf, takenOff } from './series.ts'
import { countText, dayText, Usd } from './text.tsx'
import { byDay, netNano, shareText, type UsageDay } from './totals.ts'

const Readout = ({ day: { date, totals }, measure }: { day: Day; measure: Measure }) => (
  <p class="readout">
    <strong class="part">
      {dayText(date)} {measure === 'spend' && <Usd nano={netNano(totals)} />}
    </strong>
    {partsOf(totals, measure).map(({ kind, amount }) => (
      <span key={kind} class="part">
        <i class={`key ${kind}`} />
        {KIND_TEXT[kind]} {measure === 'spend' ? <Usd nano={amount} /> : <span class="usd">{countText(amount)}</span>}
      </span>
    ))}
    {measure === 'spend' && takenOff(totals) > 0 && (
      <span class="part">
        credits and refunds <Usd nano={-takenOff(totals)} />
      </span>
    )}
    {measure === 'tokens' && <span class="part hint">{shareText(totals)} of the prompt cached</span>}
  </p>
)

const DaysTable = ({ days }: { days: readonly Day[] }) => (
  <details>
    <summary>As a table</summary>
    <div class="scroll">
      <table>
        <caption class="unseen">Usage by day</caption>
        <thead>
          <tr>
            <th scope="col">Day (UTC)</th>
            {['Requests', 'Cached', 'Uncached', 'Output', 'Spend'].map((name) => (
              <th key={name} scope="col" class="number">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {days
            .filter(({ totals }) => totals.requests > 0)
            .reverse()
            .map(({ date, totals }) => (
              <tr key={date}>
                <th scope="row">{date}</th>
                {[totals.requests, totals.cached, totals.uncached, totals.output].map((count, i) => (
                  <td key={i} class="number">
                    {countText(count)}
                  </td>
                ))}
                <td class="number">
                  <Usd nano={netNano(totals)} />
                </td>
              </tr>
            ))}
        </tbody>
      </table>
    </div>
  </details>
)

interface DaysPanelProps {
  /** Of the chosen model. */
  readonly days: UsageDaily
  readonly all: readonly UsageDay[]
  readonly model: string
  readonly onModel: (model: string) => void
}

const MEASURES = [
  ['spend', 'Spend'],
  ['tokens', 'Tokens'],
] as const

export const DaysPanel = ({ days, all, model, onModel }: DaysPanelProps) => {
  const [measure, setMeasure] = useState<Measure>('spend')
  const each = byDay(days)
  const [pointed, setPointed] = useState(each.length - 1)
  const day = each[Math.min(pointed, each.length - 1)]
  const models = [...new Set(all.map((one) => one.model))].sort()
  return (
    <section class="panel" aria-labelledby="by-day">
      <div class="head">
        <h2 id="by-day">By day</h2>
        <span class="hint">days in UTC</span>
        <div class="buttons">
          {models.length > 1 && (
            <select aria-label="Model" value={model} onChange={(event) => onModel(event.currentTarget.value)}>
              <option value="">All models</option>
              {models.map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          )}
          <fieldset class="switch">
            <legend class="unseen">Shown</legend>
            {MEASURES.map(([value, text]) => (
              <button key={value} type="button" aria-pressed={measure === value} onClick={() => setMeasure(value)}>
                {text}
              </button>
            ))}
          </fieldset>
          <CsvButton name={`sparrow-days-${days.from}-${days.to}.csv`} text={() => daysCsv(days.data)} />
        </div>
      </div>
      <Chart {...{ days: each, measure, at: pointed, onAt: setPointed }} />
      {day && <Readout day={day} measure={measure} />}
      <DaysTable days={each} />
    </section>
  )
}
