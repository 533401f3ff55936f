// npm run bench:crossover -- --model DIR [--threads N] [--tokens 256] [--depths 0,512,1024,2048,4096] [--rounds 7]
// Absorbed against expanded attention at each depth, by turns in one process; where they cross, measured and predicted.
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { openNativeEngine } from '../../gpu-node/engine/native.ts'
import { median } from './statistics.ts'

interface Point {
  readonly depth: number
  readonly absorbed: number
  readonly expanded: number
  /** Expanded over absorbed: median of the rounds' ratios, and what the rule says. */
  readonly measured: number
  readonly predicted: number
}

/** Keys of the last token where the ratio passes 1, on a line between the two depths around it. */
const crossing = (points: readonly Point[], tokens: number, key: 'measured' | 'predicted'): string => {
  for (const [i, b] of points.entries()) {
    const a = points[i - 1]
    if (a && a[key] < 1 && b[key] >= 1)
      return `${Math.round(a.depth + ((b.depth - a.depth) * (1 - a[key])) / (b[key] - a[key])) + tokens} keys`
  }
  return (points.at(-1)?.[key] ?? 0) < 1 ? 'beyond these depths' : 'before these depths'
}

const main = async (): Promise<void> => {
  const { values } = parseArgs({
    options: {
      model: { type: 'string' },
      threads: { type: 'string', default: String(cpus().length) },
      tokens: { type: 'string', default: '256' },
      depths: { type: 'string', default: '0,512,1024,2048,4096' },
      rounds: { type: 'string', default: '7' },
    },
  })
  if (!values.model) throw new Error('--model DIR is needed')
  const [tokens, rounds] = [Number(values.tokens), Number(values.rounds)]
  const engine = await openNativeEngine({
    modelDir: values.model,
    tokenBytes: [],
    kvPages: 1,
    threads: Number(values.threads),
    attention: 'fastest',
  })
  try {
    const points = values.depths.split(',').map((text): Point => {
      const depth = Number(text)
      const times = engine.crossover({ depth, tokens, rounds })
      const ratios = times.expanded.map((seconds, i) => seconds / (times.absorbed[i] ?? 0))
      return {
        depth,
        absorbed: median(times.absorbed),
        expanded: median(times.expanded),
        measured: median(ratios),
        predicted: times.expandedCost / times.absorbedCost,
      }
    })
    for (const p of points)
      console.log(
        `${tokens} tokens behind ${String(p.depth).padEnd(6)} absorbed ${(p.absorbed * 1e3).toFixed(1).padStart(8)} ms  expanded ${(p.expanded * 1e3).toFixed(1).padStart(8)} ms  ratio ${p.measured.toFixed(3)}, predicted ${p.predicted.toFixed(3)}`,
      )
    console.log(
      `crossover: ${crossing(points, tokens, 'measured')}; predicted: ${crossing(points, tokens, 'predicted')}`,
    )
  } finally {
    await engine.close()
  }
}

await main().catch((error: unknown) => {
  console.error(`bench:crossover: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 2
})
