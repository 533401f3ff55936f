// Requests, newest first, in the API's own pages; each opens to its charge, line by line.
import { useState } from 'preact/hooks'
import type { UsageList } from '../../../schema/public_answers.ts'
import { Charge } from './charge.tsx'
import { requestsCsv } from './csv.ts'
import { CsvButton } from './download.tsx'
import { countText, Usd, When, zoneText } from './text.tsx'

type Request = UsageList['data'][number]

const COLUMNS = 7

const Row = ({ apiKey, row }: { apiKey: string; row: Request }) => {
  const [isOpen, setOpen] = useState(false)
  const id = `charge-${row.request_id}`
  const { cached, uncached, output } = row.tokens
  const refund = row.refund_nano ?? 0
  return (
    <>
      <tr class={isOpen ? 'open' : ''}>
        <td>
          <button
            {...{ type: 'button', class: 'opener', 'aria-expanded': isOpen, 'aria-controls': id }}
            onClick={() => setOpen(!isOpen)}
          >
            <span class="mark" aria-hidden="true" />
            <When at={row.settled_at} />
          </button>
          <span class="name narrow">{row.model}</span>
        </td>
        <td class="name wide">{row.model}</td>
        {[cached, uncached, output].map((count, i) => (
          <td key={i} class="number wide">
            {countText(count)}
          </td>
        ))}
        <td class="wide">{row.finish}</td>
        <td class="number">
          <Usd nano={row.charge_nano} />
          {refund > 0 && (
            <div class="hint">
              given back <Usd nano={refund} />
            </div>
          )}
        </td>
      </tr>
      {isOpen && (
        <tr class="detail" id={id}>
          <td colSpan={COLUMNS}>
            <Charge apiKey={apiKey} requestId={row.request_id} />
          </td>
        </tr>
      )}
    </>
  )
}

interface RequestsPanelProps {
  readonly apiKey: string
  readonly requests: Pick<UsageList, 'data' | 'has_more'>
  readonly isLoading: boolean
  readonly onOlder: () => void
}

export const RequestsPanel = ({
  apiKey,
  requests: { data, has_more: hasMore },
  isLoading,
  onOlder,
}: RequestsPanelProps) => (
  <section class="panel" aria-labelledby="requests">
    <div class="head">
      <h2 id="requests">Requests</h2>
      <span class="hint">times in {zoneText()}</span>
      <div class="buttons">
        <CsvButton name="sparrow-requests.csv" text={() => requestsCsv(data)} />
      </div>
    </div>
    <table class="requests">
      <thead>
        <tr>
          <th scope="col">Settled</th>
          <th scope="col" class="wide">
            Model
          </th>
          {['Cached', 'Uncached', 'Output'].map((name) => (
            <th key={name} scope="col" class="number wide">
              {name}
            </th>
          ))}
          <th scope="col" class="wide">
            Ended
          </th>
          <th scope="col" class="number">
            Charge
          </th>
        </tr>
      </thead>
      <tbody>
        {data.map((row) => (
          <Row key={row.request_id} apiKey={apiKey} row={row} />
        ))}
      </tbody>
    </table>
    {hasMore ? (
      <p class="buttons">
        <button type="button" onClick={onOlder} disabled={isLoading}>
          Older requests
        </button>
        <span class="hint">{countText(data.length)} shown</span>
      </p>
    ) : (
      <p class="hint">
        {data.length === 0 ? 'Rows of these days are no longer kept.' : 'These are all that are kept.'}
      </p>
    )}
  </section>
)
