// Which charts a set of results gives: speeds of both engines against depth, sparse against dense, tokens a second by batch.
import { z } from 'zod'
import { limitsSchema, machineSchema } from '../machine.ts'
import type { Pairs } from '../peer/pairs.ts'
import { type PeerResult, peerResultSchema } from '../peer/result.ts'
import { curvesOf, type ServeResult, serveResultSchema } from '../serve/result.ts'
import type { Chart, Series } from './svg.ts'

/** What `npm run bench:engine -- --json` prints. */
export const engineResultSchema = z.object({
  kind: z.literal('bench:engine'),
  machine: machineSchema,
  model: z.string(),
  isa: z.string(),
  threads: z.number(),
  dense: z.boolean(),
  limits: z.array(limitsSchema),
  rows: z.array(
    z.object({
      what: z.enum(['prefill', 'decode', 'dense', 'batch']),
      depth: z.number(),
      batch: z.number(),
      tokensPerSecond: z.number(),
      ceiling: z.number(),
    }),
  ),
})
export type EngineResult = z.infer<typeof engineResultSchema>

export const resultSchema = z.discriminatedUnion('kind', [peerResultSchema, engineResultSchema, serveResultSchema])
export type Result = z.infer<typeof resultSchema>

export interface NamedChart {
  /** File name without its ending. */
  readonly name: string
  readonly chart: Chart
}

const DEPTH = 'tokens of context (doublings; 0 stands at the left edge)'
const SEQUENCES = 'sequences decoded together (doublings)'
const TOKENS = 'tokens a second'

type Point = readonly [number, number]
const byX = (points: readonly Point[]): Point[] => [...points].sort(([a], [b]) => a - b)

const where = (machine: EngineResult['machine'], threads: number, model: string): string =>
  `${machine.cpu}, ${threads} threads; ${model}; ${machine.date.slice(0, 10)}`

const ofPairs = (all: readonly { x: number; pairs: Pairs }[]): Series[] => {
  const points = (value: (p: Pairs) => number | null): Point[] =>
    byX(all.flatMap(({ x, pairs }) => ((y) => (y !== null && y > 0 ? [[x, y] as const] : []))(value(pairs))))
  return [
    { name: 'Sparrow', tone: 'ours', points: points((p) => p.median.ours) },
    { name: 'llama.cpp', tone: 'peer', points: points((p) => p.median.peer) },
    { name: "machine's ceiling", tone: 'ceiling', points: points((p) => p.ceiling) },
  ]
}

/** Runs of one shape on one machine belong together: the deepest rows take long, and may be a run of their own. */
const together = (results: readonly PeerResult[]): PeerResult[] =>
  [...Map.groupBy(results, (r) => [r.shape, r.machine.cpu, r.threads, r.ours].join()).values()].map((runs) => {
    const [first] = runs as [PeerResult, ...PeerResult[]]
    const ofFirst = <T>(all: readonly T[], x: (row: T) => number): T[] => [
      ...new Map(all.toReversed().map((row) => [x(row), row])).values(),
    ]
    return {
      ...first,
      depths: ofFirst(
        runs.flatMap((r) => r.depths),
        (d) => d.depth,
      ),
      batches: ofFirst(
        runs.flatMap((r) => r.batches),
        (b) => b.sequences,
      ),
    }
  })

const ofPeer = (r: PeerResult): NamedChart[] => {
  const subtitle = where(r.machine, r.threads, `${r.shape}, ${(r.parameters / 1e6).toFixed(0)}M parameters, BF16`)
  const byDepth = (what: 'prefill' | 'decode', title: string): NamedChart[] =>
    r.depths.length < 2
      ? []
      : [
          {
            name: `${what}-${r.shape}`,
            chart: {
              ...{ title, subtitle, xLabel: DEPTH, yLabel: TOKENS },
              series: ofPairs(r.depths.map((d) => ({ x: d.depth, pairs: d[what] }))),
            },
          },
        ]
  const batches = r.batches.map((b) => ({ x: b.sequences, pairs: b.decode }))
  const batch = {
    name: `batch-${r.shape}`,
    chart: {
      ...{ title: 'Decoding many sequences at once', subtitle, xLabel: SEQUENCES, yLabel: TOKENS },
      series: ofPairs(batches),
    },
  }
  return [
    ...byDepth('prefill', `Prefill of ${r.prefillTokens} tokens by depth`),
    ...byDepth('decode', 'Decoding one sequence by depth'),
    ...(batches.length > 1 ? [batch] : []),
  ]
}

/** `.sparrow/peer/models/mid/hf` is mid. */
const shortName = (model: string): string =>
  model
    .split('/')
    .filter((part) => part !== '' && part !== 'hf')
    .at(-1) ?? 'model'

/** Runs of one model on one machine belong together: the same depths may come from several files. */
const groups = (results: readonly EngineResult[]): EngineResult[][] => [
  ...Map.groupBy(results, (r) => [shortName(r.model), r.machine.cpu, r.threads, r.isa].join()).values(),
]

const rowsOf = (results: readonly EngineResult[], what: 'decode' | 'dense' | 'batch') =>
  results.flatMap((r) => r.rows.filter((row) => (r.dense && row.what === 'decode' ? 'dense' : row.what) === what))

const ofEngine = (results: readonly EngineResult[]): NamedChart[] => {
  const [first] = results
  if (!first) return []
  const name = shortName(first.model)
  const subtitle = where(first.machine, first.threads, `${name}, ${first.isa}`)
  const [sparse, dense] = (['decode', 'dense'] as const).map((which) =>
    byX(rowsOf(results, which).map((row) => [row.depth, 1000 / row.tokensPerSecond] as const)),
  ) as [Point[], Point[]]
  const batch = rowsOf(results, 'batch')
  const charts: NamedChart[] = []
  if (sparse.length > 1 && dense.length > 1) {
    const series: Series[] = [
      { name: 'sparse attention', tone: 'ours', points: sparse },
      { name: 'dense attention', tone: 'peer', points: dense },
    ]
    const title = 'Sparse against dense attention, same weights: time of a decoded token'
    charts.push({
      name: `sparse-dense-${name}`,
      chart: { title, subtitle, xLabel: DEPTH, yLabel: 'milliseconds a token', series },
    })
  }
  if (batch.length > 1) {
    const series: Series[] = [
      { name: 'Sparrow', tone: 'ours', points: byX(batch.map((r) => [r.batch, r.tokensPerSecond] as const)) },
      { name: "machine's ceiling", tone: 'ceiling', points: byX(batch.map((r) => [r.batch, r.ceiling] as const)) },
    ]
    charts.push({
      name: `batch-${name}`,
      chart: { title: 'Decoding many sequences at once', subtitle, xLabel: SEQUENCES, yLabel: TOKENS, series },
    })
  }
  return charts
}

const CACHE_SERIES = {
  on: { name: 'prefix cache on', tone: 'ours' },
  off: { name: 'prefix cache off', tone: 'peer' },
} as const

const ofServe = (r: ServeResult): NamedChart[] => {
  const curves = curvesOf(r.points)
  if (curves.every(({ goodput }) => goodput.length < 2)) return []
  const { workload, isl, prefixShare } = r.workload
  const shared = workload === 'shared' ? `, ${Math.round(100 * prefixShare)}% shared` : ''
  const series = curves.map(
    ({ cache, goodput }): Series => ({ ...(cache ? CACHE_SERIES[cache] : CACHE_SERIES.on), points: goodput }),
  )
  const what = `${r.model}, ${isl} tokens in${shared}, ${r.osl} out; TTFT <= ${r.slo.ttftMs} ms, ${r.slo.itlMs} ms a token`
  const chart: Chart = {
    ...{
      title: 'Goodput of an open loop',
      subtitle: `${what}; ${r.machine.cores} cores, ${r.machine.date.slice(0, 10)}`,
    },
    ...{ xLabel: 'requests a second sent (doublings)', yLabel: 'requests a second answered in time', series },
  }
  return [{ name: `serve-${workload}-${isl}`, chart }]
}

/** Of two rows at one depth the first file's counts. Where two results give a chart of one name, that with a peer in it stays. */
export const chartsOf = (results: readonly Result[]): NamedChart[] => {
  const peers = results.filter((r) => r.kind === 'bench:peer')
  const engines = results.filter((r) => r.kind === 'bench:engine')
  const serves = results.filter((r) => r.kind === 'bench:serve')
  const found = new Map<string, NamedChart>()
  for (const chart of [
    ...together(peers).flatMap(ofPeer),
    ...groups(engines).flatMap(ofEngine),
    ...serves.flatMap(ofServe),
  ])
    if (!found.has(chart.name)) found.set(chart.name, chart)
  return [...found.values()]
}
