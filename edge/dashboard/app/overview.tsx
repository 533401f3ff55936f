// The page of one key, from top to bottom.
import { useMemo, useState } from 'preact/hooks'
import { Cards } from './cards.tsx'
import { DaysPanel } from './days_panel.tsx'
import { Empty } from './empty.tsx'
import { ModelsPanel } from './models_panel.tsx'
import { Notice } from './notice.tsx'
import { RequestsPanel } from './requests_panel.tsx'
import { maskedKey } from './session.ts'
import { clockText } from './text.tsx'
import { totalOf } from './totals.ts'
import { type Shown, type Usage, useUsage } from './use_usage.ts'

interface HeadProps {
  readonly apiKey: string
  readonly usage: Usage
  readonly onForget: () => void
}

const Head = ({ apiKey, usage: { shown, isLoading, refresh }, onForget }: HeadProps) => (
  <header>
    <h1>
      <span class="brand">Sparrow</span> usage
    </h1>
    <p class="who">
      <code title="Your key, all but its ends hidden">{maskedKey(apiKey)}</code>
      <span class="hint" role="status">
        {isLoading ? 'Loading…' : shown ? `As of ${clockText(shown.at)}` : ''}
      </span>
      <button type="button" onClick={refresh} disabled={isLoading}>
        Refresh
      </button>
      <button type="button" onClick={onForget}>
        Forget key
      </button>
    </p>
  </header>
)

const Panels = ({ apiKey, shown, usage }: { apiKey: string; shown: Shown; usage: Usage }) => {
  const [model, setModel] = useState('')
  const { days } = shown
  // A model may go from the span while it is chosen.
  const chosen = days.data.some((day) => day.model === model) ? model : ''
  const picked = useMemo(
    () => ({ ...days, data: days.data.filter((day) => chosen === '' || day.model === chosen) }),
    [days, chosen],
  )
  const isNew = days.data.length === 0 && shown.requests.data.length === 0
  return (
    <>
      <Cards balance={shown.balance} total={totalOf(days.data)} />
      {isNew ? (
        <Empty apiKey={apiKey} />
      ) : (
        <>
          <DaysPanel {...{ days: picked, all: days.data, model: chosen, onModel: setModel }} />
          <ModelsPanel days={days.data} />
          <RequestsPanel {...{ apiKey, requests: shown.requests, isLoading: usage.isLoading, onOlder: usage.older }} />
        </>
      )}
    </>
  )
}

export const Overview = ({ apiKey, onForget }: { apiKey: string; onForget: () => void }) => {
  const usage = useUsage(apiKey)
  const { shown, failure, refresh } = usage
  return (
    <main>
      <Head {...{ apiKey, usage, onForget }} />
      {failure && <Notice {...{ failure, onRetry: refresh, onForget, shownAt: shown?.at }} />}
      {shown ? <Panels {...{ apiKey, shown, usage }} /> : !failure && <div class="waiting" aria-hidden="true" />}
      <footer class="hint">
        Amounts are US dollars, exact to the nano-dollar. <a href="/docs">API reference</a>
      </footer>
    </main>
  )
}
