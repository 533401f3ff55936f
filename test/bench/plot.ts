// Charts of what the benches measured: node test/bench/plot.ts FILE.json ... --out DIR
// Files are those of `npm run bench:peer -- --json FILE` `npm run bench:engine -- ... --json > FILE` and the same of bench:serve.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { chartsOf, type Result, resultSchema } from './plot/charts.ts'
import { lineChart } from './plot/svg.ts'

const readResult = (file: string): Result => {
  const read = resultSchema.safeParse(JSON.parse(readFileSync(file, 'utf8')))
  if (!read.success) throw new Error(`${file}: no result of a bench: ${read.error.issues[0]?.message}`)
  return read.data
}

/** Writes what the files give; the paths written. */
export const plot = (files: readonly string[], out: string): string[] => {
  mkdirSync(out, { recursive: true })
  return chartsOf(files.map(readResult)).map(({ name, chart }) => {
    const path = join(out, `${name}.svg`)
    writeFileSync(path, lineChart(chart))
    return path
  })
}

if (process.argv[1] === import.meta.filename) {
  try {
    const { values, positionals } = parseArgs({ options: { out: { type: 'string' } }, allowPositionals: true })
    if (positionals.length === 0 || !values.out)
      throw new Error('usage: node test/bench/plot.ts FILE.json ... --out DIR')
    const written = plot(positionals, values.out)
    if (written.length === 0)
      throw new Error('these results give no chart: two depths, two batch sizes or two rates are needed')
    for (const path of written) console.log(path)
  } catch (error) {
    console.error(`plot: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 2
  }
}
