// What is measured side by side: the node itself, a Worker that only pipes, Workers that do nothing but what an admission must write
// (and a look-up read), Sparrow, and Portkey's gateway, which meters nothing.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { adminCall } from '../../../scripts/admin_client.ts'
import { ROOT } from '../../../scripts/stack.ts'
import { WORKER_MODULE, type WorkerSettings } from '../../../scripts/worker/config.ts'
import { writeConfigs } from '../../../scripts/worker/prepare.ts'
import { type RunningWorker, runWorker } from '../../../scripts/worker/run.ts'
import { eventually, freePort } from '../../e2e/stack.ts'
import { bootWorker } from '../../e2e/workerd.ts'
import type { Target } from './load.ts'

export const PORTKEY = '1.15.2'
export const TARGETS = ['node', 'pipe', 'object', 'floor', 'sparrow', 'portkey'] as const
export type TargetName = (typeof TARGETS)[number]
const HOST = '127.0.0.1'
const PATH = '/v1/chat/completions'

export interface Fleet {
  readonly targets: readonly Target[]
  stop(): Promise<void>
}

const children: ChildProcess[] = []

const start = (args: string[], cwd = ROOT): void => {
  const child = spawn(join(ROOT, 'node_modules', '.bin', 'node'), args, { cwd, stdio: 'ignore' })
  children.push(child)
  process.once('exit', () => child.kill('SIGKILL'))
}

/** Portkey's gateway, fetched once into `.sparrow`, under the pinned Node. */
const startPortkey = async (): Promise<string> => {
  const folder = join(ROOT, '.sparrow', 'peer', 'portkey')
  const script = join(folder, 'node_modules', '@portkey-ai', 'gateway', 'build', 'start-server.js')
  if (!existsSync(script)) {
    mkdirSync(folder, { recursive: true })
    const quiet = ['--no-audit', '--no-fund', '--ignore-scripts']
    const args = ['install', '--prefix', folder, ...quiet, `@portkey-ai/gateway@${PORTKEY}`]
    if (spawnSync('npm', args, { stdio: 'inherit' }).status !== 0)
      throw new Error('Portkey could not be fetched; --only leaves it out.')
  }
  const port = await freePort()
  start([script, '--headless', `--port=${port}`], folder)
  const origin = `http://${HOST}:${port}`
  await eventually(async () => ((await fetch(origin).catch(() => undefined))?.ok ? true : undefined), 60_000)
  return origin
}

const pipeScript = (nodeUrl: string): string =>
  `export default { fetch: (request) => fetch('${nodeUrl}${PATH}', request) }`

/** One call of an object that writes one row, beside it one D1 read or none, then the node: nothing is known, checked or settled. */
const floorScript = (nodeUrl: string, reads: boolean): string => `
  import { DurableObject } from 'cloudflare:workers'
  export class Writer extends DurableObject {
    constructor(state, env) {
      super(state, env)
      state.storage.sql.exec('CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, at INTEGER)')
    }
    write() {
      this.ctx.storage.sql.exec('INSERT INTO rows (at) VALUES (?)', Date.now())
    }
  }
  export default {
    async fetch(request, env) {
      const body = await request.arrayBuffer()
      await Promise.all([
        env.WRITER.get(env.WRITER.idFromName('one')).write(),
        ${reads ? "env.DB.withSession('first-unconstrained').prepare('SELECT 1 AS one').all()" : ''}
      ])
      return fetch('${nodeUrl}${PATH}', { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    },
  }`

interface Started {
  readonly origin: string
  readonly running: RunningWorker
}

const listens = (address: string): Promise<true | undefined> =>
  new Promise((done) => {
    const socket = connect(Number(address.split(':')[1]), HOST)
    socket.once('error', () => done(undefined)).once('connect', () => done(true))
    socket.once('connect', () => socket.destroy())
  })

/** A Worker with its D1 in a workerd of its own, as Sparrow's. */
const startWorker = async (name: string, script: string, stateDir: string): Promise<Started> => {
  const address = `${HOST}:${await freePort()}`
  const folder = { dir: join(stateDir, name), persistDir: join(stateDir, `${name}-stores`), address }
  const settings: WorkerSettings = {
    ...{ name, vars: {}, secrets: [], cron: '*/10 * * * *', compatibilityDate: '2026-08-01', compatibilityFlags: [] },
    databases: new Map(name === 'floor' ? [['DB', 'floor']] : []),
    buckets: new Map(),
    objects: new Map(name === 'pipe' ? [] : [['WRITER', 'Writer']]),
  }
  const prepared = writeConfigs(settings, folder)
  writeFileSync(join(folder.dir, WORKER_MODULE), script)
  const running = runWorker(prepared, { env: process.env })
  await eventually(() => listens(address), 60_000)
  return { origin: `http://${address}`, running }
}

const keyOf = async (baseUrl: string, secret: string): Promise<string> => {
  const call = <T>(method: string, path: string, body: object) =>
    adminCall<T>({ baseUrl, secret, method, path: `/admin/v1${path}`, body })
  await call('PUT', '/prices', { model: 'zero', hitNano: 28, missNano: 280, outputNano: 420 })
  await call('POST', '/accounts', { name: 'bench', creditNano: 1e15 })
  return (await call<{ key: string }>('POST', '/keys', { account: 'bench', name: 'bench' })).key
}

export const startTargets = async (names: readonly TargetName[], stateDir: string): Promise<Fleet> => {
  const sparrow = await bootWorker(stateDir)
  const port = await freePort()
  const { baseUrl, secrets } = sparrow
  start(['test/bench/edge/zero_node.ts', baseUrl, secrets.JOIN_TOKEN, join(stateDir, 'node'), String(port)])
  const nodeUrl = `http://${HOST}:${port}`
  await eventually(async () => {
    const { nodes } = (await (await fetch(`${baseUrl}/healthz`)).json()) as { nodes: number }
    return nodes > 0 ? true : undefined
  }, 60_000)
  const workers: RunningWorker[] = []
  const worker = async (name: TargetName, script: string): Promise<Target> => {
    const { origin, running } = await startWorker(name, script, stateDir)
    workers.push(running)
    return { name, origin, path: PATH, headers: {} }
  }
  const make: Readonly<Record<TargetName, () => Promise<Target>>> = {
    node: async () => ({ name: 'node', origin: nodeUrl, path: PATH, headers: {} }),
    pipe: () => worker('pipe', pipeScript(nodeUrl)),
    object: () => worker('object', floorScript(nodeUrl, false)),
    floor: () => worker('floor', floorScript(nodeUrl, true)),
    sparrow: async () => {
      const authorization = `Bearer ${await keyOf(baseUrl, secrets.ADMIN_SECRET)}`
      return { name: 'sparrow', origin: baseUrl, path: PATH, headers: { authorization } }
    },
    portkey: async () => {
      const headers = { 'x-portkey-provider': 'openai', 'x-portkey-custom-host': `${nodeUrl}/v1` }
      return {
        ...{ name: 'portkey', origin: await startPortkey(), path: PATH },
        headers: { ...headers, authorization: 'Bearer x' },
      }
    },
  }
  const targets: Target[] = []
  for (const name of names) targets.push(await make[name]())
  return {
    targets,
    stop: async () => {
      for (const child of children) child.kill()
      await Promise.all([sparrow.dispose(), ...workers.map((one) => one.stop('SIGKILL'))])
    },
  }
}
