// `npm run bench:edge`: what the Worker adds to a node that answers at once, in workerd with real D1, objects and bucket, metering
// every run, beside the targets of edge/targets.ts. All in one run, by turns.
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type Answered, closedLoop, openLoop, type Spread, spreadOf, type Target } from './edge/load.ts'
import { PORTKEY, startTargets, TARGETS, type TargetName } from './edge/targets.ts'
import { describeMachine } from './machine.ts'
import { optionsOf } from './options.ts'
import { median } from './statistics.ts'

const MEMORY = '/dev/shm'
const values = optionsOf('edge', {
  seconds: { type: 'string', default: '5' },
  rounds: { type: 'string', default: '3' },
  rate: { type: 'string', default: '100' },
  /** Targets, by commas. */
  only: { type: 'string', default: TARGETS.join(',') },
  /** Measures whose names hold this. */
  measure: { type: 'string', default: '' },
  /** State on the disk: a shared one says more about itself than about the Worker. */
  disk: { type: 'boolean', default: false },
  out: { type: 'string' },
})
const seconds = Number(values.seconds)
const rounds = Number(values.rounds)
const isTarget = (name: string): name is TargetName => (TARGETS as readonly string[]).includes(name)
const names = values.only.split(',').map((name) => {
  if (!isTarget(name)) throw new Error(`--only takes ${TARGETS.join(', ')}`)
  return name
})
const inMemory = !values.disk && existsSync(MEMORY)

const medianSpread = (all: readonly Spread[]): Spread => ({
  p50: median(all.map(({ p50 }) => p50)),
  p99: median(all.map(({ p99 }) => p99)),
  perSecond: median(all.map(({ perSecond }) => perSecond)),
})

type Measure = (target: Target) => Promise<Spread>
const whole = (answers: readonly Answered[]): Spread =>
  spreadOf(
    answers.map(({ wholeMs }) => wholeMs),
    seconds,
  )
const measures: Readonly<Record<string, Measure>> = {
  'whole, 1 connection': async (t) => whole(await closedLoop(t, 1, seconds, { stream: false, tokens: 1 })),
  'whole, 1 connection, prompt of 2 KB': async (t) =>
    whole(await closedLoop(t, 1, seconds, { stream: false, tokens: 1, promptBytes: 2048 })),
  'whole, 16 connections': async (t) => whole(await closedLoop(t, 16, seconds, { stream: false, tokens: 1 })),
  'first byte of a stream': async (t) =>
    spreadOf(
      (await closedLoop(t, 1, seconds, { stream: true, tokens: 1 })).map(({ firstByteMs }) => firstByteMs),
      seconds,
    ),
  [`open loop, ${values.rate} a second`]: async (t) =>
    spreadOf(await openLoop(t, Number(values.rate), seconds, { stream: false, tokens: 1 }), seconds),
  'events of streams, 16 connections': async (t) => {
    const answers = await closedLoop(t, 16, seconds, { stream: true, tokens: 2000 })
    return { ...whole(answers), perSecond: Math.round((answers.length * 2000) / seconds) }
  },
  // Begun at even distances: sixteen that begin at once measure a burst of admissions, not the pipe.
  'lag of an event, 16 streams at 50 a second': async (t) =>
    spreadOf(
      (await closedLoop(t, 16, seconds, { stream: true, tokens: 50, pace: 20 }, 63)).flatMap(({ lags }) => [...lags]),
      seconds,
    ),
}

interface Result {
  readonly measure: string
  readonly target: string
  readonly spread: Spread
}

const measureAll = async (targets: readonly Target[], measure: string, run: Measure): Promise<Result[]> => {
  const spreads = new Map<string, Spread[]>(targets.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const target of targets) {
      // A target that cannot do this is left out of the measure, and said so.
      const spread = await run(target).catch((error: Error) => void console.error(`${measure}: ${error.message}`))
      if (spread) spreads.get(target.name)?.push(spread)
    }
  }
  return [...spreads]
    .filter(([, taken]) => taken.length > 0)
    .map(([target, taken]) => ({ measure, target, spread: medianSpread(taken) }))
}

const save = (file: string, results: readonly Result[]): void => {
  const settings = { seconds, rounds, state: inMemory ? 'memory' : 'disk', portkey: PORTKEY }
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `${JSON.stringify({ machine: describeMachine(), ...settings, results }, null, 1)}\n`)
}

const main = async (): Promise<void> => {
  const stateDir = mkdtempSync(join(inMemory ? MEMORY : tmpdir(), 'sparrow-bench-edge-'))
  const { targets, stop } = await startTargets(names, stateDir)
  for (const target of targets) await closedLoop(target, 4, 2, { stream: false, tokens: 1 })
  const results: Result[] = []
  for (const [measure, run] of Object.entries(measures)) {
    if (!measure.includes(values.measure)) continue
    const taken = await measureAll(targets, measure, run)
    results.push(...taken)
    console.log(measure)
    console.table(Object.fromEntries(taken.map(({ target, spread }) => [target, spread])))
  }
  if (values.out) save(values.out, results)
  await stop()
  rmSync(stateDir, { recursive: true, force: true })
}

await main()
process.exit(0)
