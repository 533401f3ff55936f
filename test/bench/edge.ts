// `npm run bench:edge`: what the Worker adds to a node that answers at once, in workerd with real D1, objects and bucket, metering
// every run; beside it a Worker that only pipes, and Portkey's gateway, which meters nothing. All in one run, by turns.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { convertV4MiniflareOptions, Miniflare, type V4MiniflareOptions } from 'miniflare'
import { adminCall } from '../../scripts/admin_client.ts'
import { ROOT } from '../../scripts/stack.ts'
import { eventually, freePort } from '../e2e/stack.ts'
import { bootWorker } from '../e2e/workerd.ts'
import { type Answered, closedLoop, openLoop, type Spread, spreadOf, type Target } from './edge/load.ts'
import { describeMachine } from './machine.ts'

const PORTKEY = '1.15.2'
const HOST = '127.0.0.1'
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    rate: { type: 'string', default: '100' },
    'no-peer': { type: 'boolean', default: false },
    out: { type: 'string' },
  },
})
const seconds = Number(values.seconds)
const rounds = Number(values.rounds)
const stateDir = mkdtempSync(join(tmpdir(), 'sparrow-bench-edge-'))
const children: ChildProcess[] = []

const start = (args: string[], cwd = ROOT): ChildProcess => {
  const child = spawn(join(ROOT, 'node_modules', '.bin', 'node'), args, { cwd, stdio: 'ignore' })
  children.push(child)
  process.once('exit', () => child.kill('SIGKILL'))
  return child
}

/** Portkey's gateway, fetched once into `.sparrow`, under the pinned Node. */
const startPortkey = async (): Promise<string> => {
  const folder = join(ROOT, '.sparrow', 'peer', 'portkey')
  const script = join(folder, 'node_modules', '@portkey-ai', 'gateway', 'build', 'start-server.js')
  if (!existsSync(script)) {
    mkdirSync(folder, { recursive: true })
    const args = [
      'install',
      '--prefix',
      folder,
      '--no-audit',
      '--no-fund',
      '--ignore-scripts',
      `@portkey-ai/gateway@${PORTKEY}`,
    ]
    if (spawnSync('npm', args, { stdio: 'inherit' }).status !== 0)
      throw new Error('Portkey could not be fetched; --no-peer leaves it out.')
  }
  const port = await freePort()
  start([script, '--headless', `--port=${port}`], folder)
  const origin = `http://${HOST}:${port}`
  await eventually(async () => ((await fetch(origin).catch(() => undefined))?.ok ? true : undefined), 60_000)
  return origin
}

/** What workerd costs with nothing in it but a native pipe. */
const startPipe = async (nodeUrl: string): Promise<Miniflare> => {
  const script = `export default { fetch: (request) => fetch('${nodeUrl}/v1/chat/completions', request) }`
  const options: V4MiniflareOptions = { modules: true, script, host: HOST, port: 0, compatibilityDate: '2026-08-01' }
  return new Miniflare(convertV4MiniflareOptions(options))
}

const keyOf = async (baseUrl: string, secret: string): Promise<string> => {
  const call = <T>(method: string, path: string, body: object) =>
    adminCall<T>({ baseUrl, secret, method, path: `/admin/v1${path}`, body })
  await call('PUT', '/prices', { model: 'zero', hitNano: 28, missNano: 280, outputNano: 420 })
  await call('POST', '/accounts', { name: 'bench', creditNano: 1e15 })
  return (await call<{ key: string }>('POST', '/keys', { account: 'bench', name: 'bench' })).key
}

const targets = async (): Promise<{ targets: Target[]; stop(): Promise<void> }> => {
  const worker = await bootWorker(stateDir)
  const port = await freePort()
  start([
    'test/bench/edge/zero_node.ts',
    worker.baseUrl,
    worker.secrets.JOIN_TOKEN,
    join(stateDir, 'node'),
    String(port),
  ])
  const nodeUrl = `http://${HOST}:${port}`
  await eventually(async () => {
    const { nodes } = (await (await fetch(`${worker.baseUrl}/healthz`)).json()) as { nodes: number }
    return nodes > 0 ? true : undefined
  }, 60_000)
  const authorization = `Bearer ${await keyOf(worker.baseUrl, worker.secrets.ADMIN_SECRET)}`
  const pipe = await startPipe(nodeUrl)
  const path = '/v1/chat/completions'
  const portkey = values['no-peer'] ? undefined : await startPortkey()
  const peerHeaders = {
    'x-portkey-provider': 'openai',
    'x-portkey-custom-host': `${nodeUrl}/v1`,
    authorization: 'Bearer x',
  }
  return {
    targets: [
      { name: 'node', origin: nodeUrl, path, headers: {} },
      { name: 'pipe', origin: (await pipe.ready).origin, path, headers: {} },
      { name: 'sparrow', origin: worker.baseUrl, path, headers: { authorization } },
      ...(portkey ? [{ name: 'portkey', origin: portkey, path, headers: peerHeaders }] : []),
    ],
    stop: async () => {
      await Promise.all([pipe.dispose(), worker.dispose()])
    },
  }
}

const median = (numbers: number[]): number => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0
const medianSpread = (all: Spread[]): Spread => ({
  p50: median(all.map(({ p50 }) => p50)),
  p99: median(all.map(({ p99 }) => p99)),
  perSecond: median(all.map(({ perSecond }) => perSecond)),
})

type Measure = (target: Target) => Promise<Spread>
const whole = (answers: Answered[]): Spread =>
  spreadOf(
    answers.map(({ wholeMs }) => wholeMs),
    seconds,
  )
const measures: Readonly<Record<string, Measure>> = {
  'whole, 1 connection': async (t) => whole(await closedLoop(t, 1, seconds, { stream: false, tokens: 1 })),
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
  'lag of an event, 16 streams at 50 a second': async (t) =>
    spreadOf(
      (await closedLoop(t, 16, seconds, { stream: true, tokens: 50, pace: 20 })).flatMap(({ lags }) => [...lags]),
      seconds,
    ),
}

const main = async (): Promise<void> => {
  const { targets: all, stop } = await targets()
  const results: { measure: string; target: string; spread: Spread }[] = []
  for (const target of all) await closedLoop(target, 4, 2, { stream: false, tokens: 1 })
  for (const [measure, run] of Object.entries(measures)) {
    const spreads = new Map<string, Spread[]>(all.map(({ name }) => [name, []]))
    for (let round = 0; round < rounds; round++) {
      for (const target of all) {
        // A target that cannot do this is left out of the measure, and said so.
        const spread = await run(target).catch((error: Error) => void console.error(`${measure}: ${error.message}`))
        if (spread) spreads.get(target.name)?.push(spread)
      }
    }
    for (const [target, taken] of spreads)
      if (taken.length > 0) results.push({ measure, target, spread: medianSpread(taken) })
    console.log(measure)
    console.table(Object.fromEntries(results.filter((r) => r.measure === measure).map((r) => [r.target, r.spread])))
  }
  if (values.out) {
    mkdirSync(dirname(values.out), { recursive: true })
    writeFileSync(
      values.out,
      `${JSON.stringify({ machine: describeMachine(), portkey: PORTKEY, seconds, rounds, results }, null, 1)}\n`,
    )
  }
  for (const child of children) child.kill()
  await stop()
  rmSync(stateDir, { recursive: true, force: true })
}

await main()
process.exit(0)
