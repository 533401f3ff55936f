// What the chart stacks: tokens or dollars of a day by kind.
import { netNano, type Totals } from './totals.ts'

export type Measure = 'spend' | 'tokens'

export interface Part {
  readonly kind: 'cached' | 'uncached' | 'output' | 'unsplit'
  readonly amount: number
}

export const KIND_TEXT: Readonly<Record<Part['kind'], string>> = {
  cached: 'cached input',
  uncached: 'uncached input',
  output: 'output',
  unsplit: 'not split',
}

/** From the bottom up. */
export const partsOf = ({ cached, uncached, output, chargeNano, costs }: Totals, measure: Measure): Part[] => {
  if (measure === 'spend' && !costs) return [{ kind: 'unsplit', amount: chargeNano }]
  const amounts =
    measure === 'tokens' || !costs
      ? { cached, uncached, output }
      : { cached: costs.cached_nano, uncached: costs.uncached_nano, output: costs.output_nano }
  return (['cached', 'uncached', 'output'] as const).map((kind) => ({ kind, amount: amounts[kind] }))
}

/** What spend is less than its parts: credits and what was given back. */
export const takenOff = (totals: Totals): number =>
  partsOf(totals, 'spend').reduce((sum, { amount }) => sum + amount, 0) - netNano(totals)
