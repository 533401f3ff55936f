// One charge taken apart: its lines sum to it; then what was held, how long it took, who answered and the receipt.
import { type ComponentChildren, Fragment } from 'preact'
import { useState } from 'preact/hooks'
import type { PendingUsage, SettledUsage } from '../../../schema/public_answers.ts'
import { Miss } from './miss.tsx'
import { Notice } from './notice.tsx'
import { countText, Usd, When } from './text.tsx'
import { useFetched } from './use_fetched.ts'

type Explained = SettledUsage | PendingUsage
type Line = Explained['lines'][number]

const Lines = ({ lines }: { lines: readonly Line[] }) => (
  <table class="lines">
    <caption class="unseen">The charge, line by line</caption>
    <thead class="unseen">
      <tr>
        <th scope="col">For</th>
        <th scope="col">Tokens and price</th>
        <th scope="col">Amount</th>
      </tr>
    </thead>
    <tbody>
      {lines.map(({ item, quantity, unit_nano: unit, amount_nano: amount }) => (
        <tr key={item}>
          <th scope="row">{item}</th>
          <td class="number sum">
            {quantity !== undefined && unit !== undefined && (
              <>
                {countText(quantity)} × <Usd nano={unit} />
              </>
            )}
          </td>
          <td class="number">
            <Usd nano={amount} />
          </td>
        </tr>
      ))}
    </tbody>
    <tfoot>
      <tr>
        <th scope="row">Paid</th>
        <td />
        <td class="number">
          <Usd nano={lines.reduce((sum, line) => sum + line.amount_nano, 0)} />
        </td>
      </tr>
    </tfoot>
  </table>
)

const Facts = ({ facts }: { facts: readonly (readonly [string, ComponentChildren])[] }) => (
  <dl class="facts">
    {facts.map(([name, value]) => (
      <Fragment key={name}>
        <dt>{name}</dt>
        <dd>{value}</dd>
      </Fragment>
    ))}
  </dl>
)

const factsOf = (usage: Explained): (readonly [string, ComponentChildren])[] => [
  ['Request', <code key="id">{usage.request_id}</code>],
  ...('finish' in usage ? ([['Ended with', usage.finish]] as const) : ([['State', usage.note]] as const)),
  [
    'Held meanwhile',
    <>
      <Usd nano={usage.hold.amount_nano} />, of which <Usd nano={usage.hold.returned_nano} /> came back
    </>,
  ],
  ['Price in force since', <When key="at" at={usage.price_version} />],
  ...('timing' in usage ? timesOf(usage) : []),
  ['Attempts', usage.attempts.map(({ node, outcome }) => `${node}: ${outcome}`).join('; ') || 'none'],
  ...('repeats' in usage && usage.repeats ? ([['Repeats', <code key="of">{usage.repeats}</code>]] as const) : []),
  ...('receipt' in usage
    ? ([
        ['Receipt', `${usage.receipt.node}, journal ${usage.receipt.epoch}, number ${usage.receipt.seq}`],
        ['Signature', <code key="signature">{usage.receipt.signature}</code>],
      ] as const)
    : []),
]

const timesOf = ({ timing: { opened_at: opened, first_token_at: first, closed_at: closed } }: SettledUsage) =>
  [
    ['First token after', first === null ? 'none came' : `${countText(first - opened)} ms`],
    ['Whole answer after', `${countText(closed - opened)} ms`],
  ] as const

export const Charge = ({ apiKey, requestId }: { apiKey: string; requestId: string }) => {
  const { result, again } = useFetched<Explained>(apiKey, `/v1/usage/${encodeURIComponent(requestId)}`)
  const [isAsked, setAsked] = useState(false)
  if (!result) return <p class="hint">Loading…</p>
  if (!result.ok) return <Notice failure={result.error} onRetry={again} />
  return (
    <div class="charge">
      <Lines lines={result.value.lines} />
      {isAsked ? (
        <Miss apiKey={apiKey} requestId={requestId} />
      ) : (
        <p class="buttons">
          <button type="button" onClick={() => setAsked(true)}>
            Where did its prompt leave the cache?
          </button>
        </p>
      )}
      <Facts facts={factsOf(result.value)} />
    </div>
  )
}
