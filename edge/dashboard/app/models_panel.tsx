// The last 30 days by model.
import { countText, Usd } from './text.tsx'
import { byModel, netNano, shareText, type UsageDay } from './totals.ts'

export const ModelsPanel = ({ days }: { days: readonly UsageDay[] }) => (
  <section class="panel" aria-labelledby="by-model">
    <div class="head">
      <h2 id="by-model">By model</h2>
      <span class="hint">last 30 days</span>
    </div>
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Model</th>
            {['Requests', 'Cached', 'Uncached', 'Output'].map((name) => (
              <th key={name} scope="col" class="number wide">
                {name}
              </th>
            ))}
            <th scope="col" class="number">
              Cached share
            </th>
            <th scope="col" class="number wide">
              Saved
            </th>
            <th scope="col" class="number">
              Spend
            </th>
          </tr>
        </thead>
        <tbody>
          {byModel(days).map(({ model, totals }) => (
            <tr key={model}>
              <th scope="row" class="name">
                {model}
              </th>
              {[totals.requests, totals.cached, totals.uncached, totals.output].map((count, i) => (
                <td key={i} class="number wide">
                  {countText(count)}
                </td>
              ))}
              <td class="number">{shareText(totals)}</td>
              <td class="number wide">{totals.costs ? <Usd nano={totals.costs.saved_nano} /> : 'not known'}</td>
              <td class="number">
                <Usd nano={netNano(totals)} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  </section>
)
