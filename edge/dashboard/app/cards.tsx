// The figures at the top: balance, and what the last 30 days came to.
import type { ComponentChildren } from 'preact'
import type { Balance } from './balance.ts'
import { countText, Usd } from './text.tsx'
import { netNano, shareText, type Totals } from './totals.ts'

const Card = ({ name, children, note }: { name: string; children: ComponentChildren; note: ComponentChildren }) => (
  <div class="card">
    <dt>{name}</dt>
    <dd>
      <div class="figure">{children}</div>
      <div class="hint">{note}</div>
    </dd>
  </div>
)

const spendNote = ({ creditNano, refundNano }: Totals): ComponentChildren => (
  <>
    last 30 days
    {creditNano > 0 && (
      <>
        , after <Usd nano={creditNano} /> of credits
      </>
    )}
    {refundNano > 0 && (
      <>
        , <Usd nano={refundNano} /> given back
      </>
    )}
  </>
)

const balanceNote = ({ heldNano, isAvailable }: Balance): ComponentChildren => {
  if (heldNano === 0) return isAvailable ? 'of the account' : 'nothing is free to spend'
  return (
    <>
      <Usd nano={heldNano} /> of it held by requests under way
    </>
  )
}

export const Cards = ({ balance, total }: { balance: Balance; total: Totals }) => {
  const prompt = total.cached + total.uncached
  return (
    <dl class="cards">
      <Card name="Balance" note={balanceNote(balance)}>
        <Usd nano={balance.nano} />
      </Card>
      <Card name="Spend" note={spendNote(total)}>
        <Usd nano={netNano(total)} />
      </Card>
      <Card name="Cached" note={`${countText(total.cached)} of ${countText(prompt)} prompt tokens`}>
        {shareText(total)}
      </Card>
      <Card name="Saved by caching" note="cached tokens × price difference">
        {total.costs ? <Usd nano={total.costs.saved_nano} /> : 'not known'}
      </Card>
      <Card name="Requests" note={`${countText(prompt + total.output)} tokens in and out`}>
        {countText(total.requests)}
      </Card>
    </dl>
  )
}
