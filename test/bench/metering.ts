// `npm run bench:metering -- --events 1000000 --seed 1`: metering losses and duplicates with faults injected, counted against what really
// happened. An event is one run that a client asked for.
// Real: journal, segment chain and shipper of the node on real files; Ed25519 receipts; the whole Worker from POST /internal/receipts on, the
// account objects with their tables, admission, settlement and outbox, the D1 schema with its triggers, the audit.
// Simulated: SQLite and files stand for object storage, D1 and R2 (metering/platform.ts), function calls for the network, a copy of its
// directory for a killed node, a fast clock for Date.now. There is no engine: plans say what a run uses. The seed fixes plans and draws of
// faults; the order in which the operating system ends file writes is its own.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describeMachine } from './machine.ts'
import { Faults } from './metering/faults.ts'
import { Truth } from './metering/truth.ts'
import { optionsOf } from './options.ts'

/** Simulated milliseconds in a real one, from two minutes before the end of a month: roll-ups and budgets turn over, holds run out. */
const SPEED = 60
const START = Date.UTC(2027, 0, 31, 23, 58)

const values = optionsOf('metering', {
  events: { type: 'string', default: '1000000' },
  seed: { type: 'string', default: '1' },
  accounts: { type: 'string', default: '100' },
  nodes: { type: 'string', default: '4' },
  json: { type: 'boolean', default: false },
  verbose: { type: 'boolean', default: false },
  out: { type: 'string' },
})
const [runs, seed, accounts, nodes] = [values.events, values.seed, values.accounts, values.nodes].map(Number) as [
  number,
  number,
  number,
  number,
]

registerHooks({
  resolve: (specifier, context, next) =>
    specifier === 'cloudflare:workers'
      ? { url: new URL('./metering/workers.ts', import.meta.url).href, shortCircuit: true }
      : next(specifier, context),
})
const { makeWorld, topUpOf } = await import('./metering/world.ts')
const { Simulation } = await import('./metering/simulate.ts')
const { check } = await import('./metering/check.ts')

const say = process.stderr.write.bind(process.stderr)
if (!values.verbose) {
  // Node and edge log every injected fault.
  process.stderr.write = () => true
  for (const level of ['info', 'warn', 'error'] as const) console[level] = () => {}
}

const began = Date.now()
Date.now = () => START + Math.floor(performance.now() * SPEED)
const dir = mkdtempSync(join(tmpdir(), 'sparrow-metering-'))
try {
  const [faults, truth] = [new Faults(seed), new Truth(runs)]
  const world = await makeWorld(dir, accounts, faults)
  const simulation = new Simulation({ runs, seed, accounts, nodes, dir, world, faults, truth })
  let told = 0
  const delivered = await simulation.run((started) => {
    if (values.json || started < told + 50_000) return
    told = started
    say(`${started} of ${runs} runs, ${Math.round(performance.now() / 1000)} s\n`)
  })
  const simulated = performance.now()
  const verdict = await check(world, truth, { dir, accounts, topUpNano: topUpOf })
  const result = {
    events: runs,
    ...{ seed, accounts, nodes, closedRecords: truth.closedRecords, refused: simulation.refused, delivered },
    ...{ changedRecords: truth.changed, ...verdict, faults: faults.counts },
    seconds: { simulation: Math.round(simulated / 1000), check: Math.round((performance.now() - simulated) / 1000) },
    machine: { ...describeMachine(), date: new Date(began).toISOString() },
  }
  const text = `${JSON.stringify(result, null, 1)}\n`
  if (values.json) process.stdout.write(text)
  else console.log(text)
  if (values.out) {
    mkdirSync(dirname(values.out), { recursive: true })
    writeFileSync(values.out, text)
  }
  const {
    losses,
    duplicates,
    phantoms,
    wrongRows,
    wrongCharges,
    wrongBalances,
    wrongHours,
    notDerivable,
    auditFindings,
  } = verdict
  const wrong =
    losses +
    duplicates +
    phantoms +
    wrongRows +
    wrongCharges +
    wrongBalances +
    wrongHours +
    notDerivable +
    auditFindings
  if (wrong + truth.changed > 0 || !delivered) process.exitCode = 1
} catch (error) {
  say(`${error instanceof Error ? error.stack : String(error)}\n`)
  process.exitCode = 2
} finally {
  rmSync(dir, { recursive: true, force: true })
}
