// npm run soak -- [--minutes 30] [--clients 8] [--pages 64] [--seed N] [--json]: many unlike clients at once against the Worker in workerd and a node with few
// KV pages, then everything must be as it was: nothing runs, no page and no money is held, memory has not grown, and every run has
// one receipt, one usage row and the right charge.
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type AuditReport, auditBooks } from '../../scripts/admin_audit.ts'
import { type Random, randomOf } from '../bench/serve/random.ts'
import { eventually } from '../e2e/stack.ts'
import { type BareStack, bootBareStack } from '../e2e/workerd.ts'
import { pickClient } from './clients.ts'
import { heapBytes } from './heap.ts'
import { bytesOf, workerdBytes } from './processes.ts'
import { type Sampled, type Trend, trendOf } from './trend.ts'

const CREDIT_NANO = 1e14
/** A visit that takes longer is stuck: hundreds of times what it takes alone. */
const STUCK_MS = 180_000
const MIB = 2 ** 20

export interface SoakOptions {
  readonly seconds: number
  readonly clients: number
  readonly kvPages: number
  readonly seed: number
}

export interface SoakReport {
  readonly options: SoakOptions
  readonly visits: number
  /** By client and outcome. */
  readonly outcomes: Readonly<Record<string, number>>
  readonly node: Trend
  /** The Worker's heap without garbage: behind the warm-up, and at the end at rest. */
  readonly heap: { readonly start: number; readonly end: number }
  /** Of the process; not judged, see test/soak/control.ts. */
  readonly workerd: Trend
  readonly preemptions: number
  readonly hits: number
  readonly runs: number
  readonly usageRows: number
  /** What is not as it must be; empty when all is well. */
  readonly wrong: readonly string[]
}

interface Log {
  readonly outcomes: Map<string, number>
  readonly wrong: string[]
  readonly ids: Set<string>
  readonly nodeBytes: Sampled[]
  readonly workerdBytes: Sampled[]
}

const clientLoop = async (stack: BareStack, random: Random, until: number, log: Log): Promise<void> => {
  while (performance.now() < until) {
    const [name, client] = pickClient(random)
    const signal = AbortSignal.timeout(STUCK_MS)
    const { id, outcome, fine } = await client(stack, random, signal).catch((error: unknown) => {
      return { id: undefined, outcome: signal.aborted ? 'stuck' : String(error), fine: false }
    })
    if (id !== undefined && (outcome === '200' || outcome === 'left')) log.ids.add(id)
    const key = `${name}: ${fine ? outcome : 'wrong'}`
    log.outcomes.set(key, (log.outcomes.get(key) ?? 0) + 1)
    if (!fine) log.wrong.push(`${name}: ${outcome}`)
    if (outcome === '503' || outcome === '429') await sleep(random() * 1000)
  }
}

type Say = (text: string) => void

const progress = ({ outcomes, wrong, nodeBytes, workerdBytes }: Log): string => {
  const visits = [...outcomes.values()].reduce((sum, count) => sum + count, 0)
  const last = (samples: readonly Sampled[]) => mib(samples.at(-1)?.value ?? 0)
  return `${visits} visits, node ${last(nodeBytes)} MiB, workerd ${last(workerdBytes)} MiB, ${wrong.length} wrong ${wrong.at(-1) ?? ''}`
}

const watch = async (stack: BareStack, start: number, until: number, log: Log, say: Say): Promise<void> => {
  const every = Math.max(250, (until - start) / 400)
  let saidAt = start
  while (performance.now() < until) {
    const at = (performance.now() - start) / 1000
    log.nodeBytes.push({ at, value: bytesOf(stack.nodePid()) })
    log.workerdBytes.push({ at, value: workerdBytes() })
    const live = await fetch(`${stack.nodeUrl}/livez`)
    if (live.status !== 200) log.wrong.push(`/livez: ${live.status} ${await live.text()}`)
    else await live.arrayBuffer()
    if (performance.now() - saidAt > 60_000) {
      saidAt = performance.now()
      say(`${Math.round(at / 60)} min: ${progress(log)}`)
    }
    await sleep(every)
  }
}

type Samples = ReadonlyMap<string, number>

const scrape = async (stack: BareStack): Promise<Samples> => {
  const text = await (await fetch(`${stack.nodeUrl}/metrics`)).text()
  const rows = [...text.matchAll(/^([\w:]+)((?:\{[^}]*\})?) (\S+)$/gm)]
  const sums = new Map<string, number>()
  for (const [, name = '', , value] of rows) sums.set(name, (sums.get(name) ?? 0) + Number(value))
  return sums
}

const QUIET = [
  'vllm:num_requests_running',
  'vllm:num_requests_waiting',
  'vllm:kv_cache_usage_perc',
  ...['sparrow_kv_pages_used', 'sparrow_journal_open', 'sparrow_journal_pending', 'sparrow_stream_backlog_bytes'],
]

/** Waits until nothing runs and every receipt is settled; the names of what never came to rest. */
const comesToRest = async (stack: BareStack): Promise<string[]> => {
  const loud = (samples: Samples) => QUIET.filter((name) => samples.get(name) !== 0)
  const deadline = Date.now() + 60_000
  for (;;) {
    const found = loud(await scrape(stack))
    if (found.length === 0 || Date.now() > deadline) return found
    await sleep(200)
  }
}

interface UsagePage {
  readonly data: readonly { readonly request_id: string }[]
  readonly has_more?: boolean
}

/** Ids of every usage row of the key. */
const usageIds = async (stack: BareStack): Promise<string[]> => {
  const ids: string[] = []
  for (;;) {
    const after = ids.length > 0 ? `&after=${ids.at(-1)}` : ''
    const response = await fetch(`${stack.baseUrl}/v1/usage?limit=100&from=0${after}`, {
      headers: { authorization: `Bearer ${stack.key}` },
    })
    const { data } = (await response.json()) as UsagePage
    if (data.length === 0) return ids
    ids.push(...data.map(({ request_id }) => request_id))
  }
}

/** Runs of the node, receipts it delivered, usage rows, and the answers that clients got: the same runs, each once. */
const checkBooks = async (stack: BareStack, log: Log, samples: Samples): Promise<number> => {
  const runs = samples.get('vllm:request_success_total') ?? 0
  const receipts = samples.get('sparrow_receipts_total') ?? 0
  if (receipts !== runs) log.wrong.push(`${runs} runs, ${receipts} receipts delivered`)
  const ids = await eventually(async () => {
    const found = await usageIds(stack)
    return found.length >= runs ? found : undefined
  }, 30_000).catch(() => usageIds(stack))
  const rows = new Set(ids)
  if (ids.length !== runs || rows.size !== ids.length)
    log.wrong.push(`${runs} runs, ${ids.length} usage rows, ${rows.size} of them different`)
  const missing = [...log.ids].filter((id) => !rows.has(id))
  if (missing.length > 0) log.wrong.push(`answered and not in the books: ${missing.slice(0, 5).join(', ')}`)
  const { heldNano } = await stack.admin<{ heldNano: number }>('GET', '/accounts/demo')
  if (heldNano !== 0) log.wrong.push(`${heldNano} nano-dollars are held for runs that are over`)
  const audit = (): Promise<AuditReport> => auditBooks(stack.admin, [join(stack.stateDir, 'node', 'journal')])
  const report = await eventually(async () => ((one) => (one.ok ? one : undefined))(await audit()), 20_000).catch(audit)
  for (const finding of report.findings.slice(0, 10)) log.wrong.push(`audit: ${JSON.stringify(finding)}`)
  return ids.length
}

/** A shorter soak is still warm-up: in one of seconds only a leak of the size of whole requests shows. */
const checkNode = (trend: Trend, seconds: number, wrong: string[]): void => {
  const growth = trend.end - trend.start
  const warmUp = seconds < 300 ? 3 : seconds < 1200 ? 2 : 1
  if (growth <= warmUp * Math.max(64 * MIB, 0.15 * trend.start)) return
  wrong.push(`the node grew by ${mib(growth)} MiB, ${mib(trend.perMinute)} MiB a minute at last`)
}

/** Code and tables of a few MiB; a leak of one body of a thousand visits would show. */
const HEAP_GROWTH_BYTES = 4 * MIB

const checkHeap = ({ start, end }: SoakReport['heap'], wrong: string[]): void => {
  if (end - start > HEAP_GROWTH_BYTES) wrong.push(`the Worker's heap grew from ${mib(start)} to ${mib(end)} MiB`)
}

const mib = (bytes: number): string => (bytes / MIB).toFixed(1)

export const soak = async (stack: BareStack, options: SoakOptions, say: Say = () => {}): Promise<SoakReport> => {
  const { seconds, clients, seed } = options
  await stack.admin('POST', '/topups', { account: 'demo', amountNano: CREDIT_NANO })
  const log: Log = { outcomes: new Map(), wrong: [], ids: new Set(), nodeBytes: [], workerdBytes: [] }
  const start = performance.now()
  const until = start + 1000 * seconds
  const loops = Array.from({ length: clients }, (_, i) => clientLoop(stack, randomOf(seed * 1000 + i), until, log))
  const warm = sleep(250 * seconds).then(() => heapBytes(stack.inspectorUrl))
  await Promise.all([...loops, watch(stack, start, until, log, say)])
  for (const name of await comesToRest(stack)) log.wrong.push(`${name} did not come to rest`)
  const samples = await scrape(stack)
  const usageRows = await checkBooks(stack, log, samples)
  const [node, workerd] = [trendOf(log.nodeBytes), trendOf(log.workerdBytes)]
  const heap = { start: await warm, end: await heapBytes(stack.inspectorUrl) }
  checkNode(node, seconds, log.wrong)
  checkHeap(heap, log.wrong)
  return {
    ...{ options, node, heap, workerd, usageRows },
    visits: [...log.outcomes.values()].reduce((sum, count) => sum + count, 0),
    outcomes: Object.fromEntries([...log.outcomes].sort(([a], [b]) => (a < b ? -1 : 1))),
    preemptions: samples.get('vllm:num_preemptions_total') ?? 0,
    hits: samples.get('vllm:prefix_cache_hits_total') ?? 0,
    runs: samples.get('vllm:request_success_total') ?? 0,
    wrong: log.wrong,
  }
}

/** A stack whose pages hold one context, so that runs take each other's. */
export const bootSoakStack = (kvPages: number): Promise<BareStack> =>
  bootBareStack({ SPARROW_KV_PAGES: String(kvPages), SPARROW_STALL_SECONDS: '30' })

const main = async (): Promise<boolean> => {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '30' },
      clients: { type: 'string', default: '8' },
      pages: { type: 'string', default: '64' },
      seed: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
    },
  })
  const number = (name: 'minutes' | 'clients' | 'pages' | 'seed'): number => {
    const value = Number(values[name])
    if (!(value > 0)) throw new Error(`--${name}: ${values[name]} is no number above 0`)
    return value
  }
  const options = { seconds: 60 * number('minutes'), clients: number('clients') }
  const stack = await bootSoakStack(number('pages'))
  try {
    const report = await soak(stack, { ...options, kvPages: number('pages'), seed: number('seed') }, (text) =>
      console.error(text),
    )
    if (values.json) console.log(JSON.stringify(report))
    else print(report)
    return report.wrong.length === 0
  } finally {
    await stack.remove()
  }
}

const print = (report: SoakReport): void => {
  for (const [what, count] of Object.entries(report.outcomes)) console.log(`${String(count).padStart(7)}  ${what}`)
  for (const name of ['node', 'workerd'] as const) {
    const { start, end, most, perMinute } = report[name]
    const [from, to, top, slope] = [start, end, most, perMinute].map(mib)
    console.log(`${name}: ${from} MiB behind the warm-up, ${to} at the end, ${top} at most; ${slope} a minute at last`)
  }
  console.log(`the Worker's heap: ${mib(report.heap.start)} MiB behind the warm-up, ${mib(report.heap.end)} at the end`)
  const { visits, runs, usageRows, hits, preemptions } = report
  console.log(
    `${visits} visits, ${runs} runs, ${usageRows} usage rows, ${hits} tokens cached, ${preemptions} preemptions`,
  )
  for (const what of report.wrong) console.log(`WRONG: ${what}`)
  if (report.wrong.length === 0) console.log('nothing is wrong')
}

if (process.argv[1] === import.meta.filename) {
  main().then(
    (well) => process.exit(well ? 0 : 1),
    (error: unknown) => {
      console.error(`soak: ${error instanceof Error ? error.message : String(error)}`)
      process.exit(2)
    },
  )
}
