// The command line of bench:serve.
import { parseArgs } from 'node:util'
import type { Slo } from './summary.ts'
import { WORKLOADS, type WorkloadOptions } from './workload.ts'

export const USAGE = `usage: npm run bench:serve -- [--url URL --key KEY] [--model NAME] [--rate R | --sweep R,R,...] [--duration S]
  [--isl N] [--osl M] [--workload random|shared|multi-turn] [--prefix-share 0.8] [--prefixes 4] [--turns 8] [--conversations 8]
  [--slo-ttft MS] [--slo-itl MS] [--seed N] [--compare-cache] [--repeats N] [--json]
Without --url it starts the whole stack with the embedded model. --compare-cache: two of them, one with SPARROW_PREFIX_CACHE=off,
loaded by turns.`

export interface Options {
  readonly url: string | undefined
  readonly key: string | undefined
  readonly model: string
  readonly rates: readonly number[]
  readonly duration: number
  readonly osl: number
  readonly workload: WorkloadOptions
  readonly slo: Slo
  readonly compareCache: boolean
  readonly repeats: number
  readonly json: boolean
}

const NUMBERS = {
  rate: ['4', 0.001],
  duration: ['30', 1],
  isl: ['2048', 1],
  osl: ['32', 1],
  'prefix-share': ['0.8', 0],
  prefixes: ['4', 1],
  turns: ['8', 1],
  conversations: ['8', 1],
  'slo-ttft': ['1000', 1],
  'slo-itl': ['100', 1],
  seed: ['1', 0],
  repeats: ['1', 1],
} as const
type Name = keyof typeof NUMBERS

/** Errors: a sentence that names the option. */
export const readOptions = (args: readonly string[]): Options => {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean', default: false } as const
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...{ url: text, key: text, model: text, sweep: text, workload: text },
      ...{ 'compare-cache': flag, json: flag, help: flag },
      ...(Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, text])) as Record<Name, typeof text>),
    },
  })
  if (values.help) throw new Error(USAGE)
  const checked = (name: string, given: string, least: number): number => {
    const value = Number(given)
    if (given.trim() === '' || !(value >= least && Number.isFinite(value)))
      throw new Error(`--${name}: ${given || 'nothing'} is no number from ${least}`)
    return value
  }
  const number = (name: Name): number => checked(name, values[name] ?? NUMBERS[name][0], NUMBERS[name][1])
  const workload = WORKLOADS.find((one) => one === (values.workload ?? 'shared'))
  if (!workload) throw new Error(`--workload: ${values.workload} is none of ${WORKLOADS.join(', ')}`)
  const prefixShare = number('prefix-share')
  if (prefixShare >= 1) throw new Error('--prefix-share: below 1, every prompt has something of its own')
  if (values.url && values['compare-cache']) throw new Error('--compare-cache starts its own nodes: leave out --url')
  const { sweep } = values
  return {
    ...{ url: values.url, key: values.key ?? process.env.SPARROW_API_KEY, model: values.model ?? 'sparrow-mini' },
    rates: sweep === undefined ? [number('rate')] : sweep.split(',').map((one) => checked('sweep', one, 0.001)),
    ...{ duration: number('duration'), osl: number('osl'), repeats: number('repeats') },
    workload: {
      ...{ workload, prefixShare, isl: number('isl'), prefixes: number('prefixes'), turns: number('turns') },
      ...{ conversations: number('conversations'), seed: number('seed') },
    },
    slo: { ttftMs: number('slo-ttft'), itlMs: number('slo-itl') },
    ...{ compareCache: values['compare-cache'], json: values.json },
  }
}
