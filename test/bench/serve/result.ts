// What `npm run bench:serve -- --json` prints, and the best of it.
import { z } from 'zod'
import { machineSchema } from '../machine.ts'

const spreadSchema = z.object({ p50: z.number(), p90: z.number(), p99: z.number(), mean: z.number() })

export const pointSchema = z.object({
  /** Of the node's prefix cache; null: not known. */
  cache: z.enum(['on', 'off']).nullable(),
  /** Requests a second that were sent. */
  rate: z.number(),
  ...{ sent: z.number(), completed: z.number(), good: z.number(), errors: z.record(z.string(), z.number()) },
  ...{ goodput: z.number(), requestsPerSecond: z.number() },
  ...{ outputTokensPerSecond: z.number(), promptTokensPerSecond: z.number() },
  ...{ meanPromptTokens: z.number(), cachedShare: z.number() },
  ...{ ttft: spreadSchema, itl: spreadSchema, tpot: spreadSchema, e2e: spreadSchema },
  lag: spreadSchema.extend({ max: z.number() }),
})
export type Point = z.infer<typeof pointSchema>

export const serveResultSchema = z.object({
  kind: z.literal('bench:serve'),
  machine: machineSchema,
  model: z.string(),
  workload: z.object({
    ...{ workload: z.string(), isl: z.number(), prefixShare: z.number(), prefixes: z.number(), turns: z.number() },
    ...{ conversations: z.number(), seed: z.number() },
  }),
  ...{ osl: z.number(), duration: z.number(), slo: z.object({ ttftMs: z.number(), itlMs: z.number() }) },
  points: z.array(pointSchema),
})
export type ServeResult = z.infer<typeof serveResultSchema>

export interface Curve {
  readonly cache: Point['cache']
  /** Mean goodput by rate, ascending. */
  readonly goodput: readonly (readonly [rate: number, goodput: number])[]
  readonly best: number
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length

/** One a setting of the cache; repeats at one rate are averaged. */
export const curvesOf = (points: readonly Point[]): Curve[] =>
  [...Map.groupBy(points, ({ cache }) => cache)].map(([cache, own]) => {
    const goodput = [...Map.groupBy(own, ({ rate }) => rate)]
      .map(([rate, same]) => [rate, mean(same.map((point) => point.goodput))] as const)
      .sort(([a], [b]) => a - b)
    return { cache, goodput, best: Math.max(...goodput.map(([, value]) => value)) }
  })

/** How many times the best goodput without the prefix cache is that with it; undefined unless both were loaded. */
export const cacheGain = (points: readonly Point[]): number | undefined => {
  const best = (of: 'on' | 'off') => curvesOf(points).find(({ cache }) => cache === of)?.best
  const [on, off] = [best('on'), best('off')]
  return on === undefined || off === undefined ? undefined : on / off
}
