// `npm run bench:router`: the real router against round-robin, least-loaded and consistent hashing, on a simulated fleet. Offline,
// seeded, the same figures everywhere.
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { optionsOf } from './options.ts'
import { POLICIES, Simulation } from './router/simulate.ts'
import { trace } from './router/trace.ts'

const values = optionsOf('router', {
  nodes: { type: 'string', default: '32' },
  sessions: { type: 'string', default: '10000' },
  'system-prompts': { type: 'string', default: '200' },
  minutes: { type: 'string', default: '15' },
  'cache-tokens': { type: 'string', default: '400000' },
  prefill: { type: 'string', default: '2500' },
  seed: { type: 'string', default: '1' },
  out: { type: 'string' },
})
const fleet = {
  nodes: Number(values.nodes),
  cacheTokens: Number(values['cache-tokens']),
  prefillTokensPerSecond: Number(values.prefill),
  decodeTokensPerSecond: 40,
}
const options = {
  sessions: Number(values.sessions),
  seed: Number(values.seed),
  spanMs: Number(values.minutes) * 60_000,
  systemPrompts: Number(values['system-prompts']),
}
const requests = trace(options)
const round = (value: number): number => Math.round(value * 1000) / 1000
const outcomes = POLICIES.map((policy) => {
  const outcome = new Simulation(policy, fleet, options.spanMs).run(requests)
  return Object.fromEntries(Object.entries(outcome).map(([k, v]) => [k, typeof v === 'number' ? round(v) : v]))
})
console.table(outcomes)
if (values.out) {
  mkdirSync(dirname(values.out), { recursive: true })
  writeFileSync(
    values.out,
    `${JSON.stringify({ fleet, trace: { ...options, requests: requests.length }, outcomes }, null, 1)}\n`,
  )
}
