// The Worker in workerd itself, without the proxy that `wrangler dev` puts before it, and a real node: a client's connection is
// workerd's own, so that a test sees when the Worker hears of its end.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { convertV4MiniflareOptions, Miniflare, type V4MiniflareOptions } from 'miniflare'
import { unstable_getMiniflareWorkerOptions } from 'wrangler'
import { adminCall } from '../../scripts/admin_client.ts'
import { firstKey } from '../../scripts/first_account.ts'
import { loadSecrets, ROOT, type Secrets } from '../../scripts/stack.ts'
import { eventually, freePort, MODEL, type TestStack } from './stack.ts'

export type BareStack = Pick<TestStack, 'baseUrl' | 'nodeUrl' | 'nodePid' | 'stateDir' | 'key' | 'admin' | 'remove'> &
  Pick<BareWorker, 'inspectorUrl' | 'secrets'>

/** One node more of a stack, with its state below the stack's. */
export interface MoreNode {
  readonly url: string
  readonly pid: number | undefined
  readonly stateDir: string
  remove(): Promise<void>
}

const HOST = '127.0.0.1'
const BIN = join(ROOT, 'node_modules', '.bin')

const bundle = (folder: string): string => {
  const args = ['deploy', '--dry-run', '--outdir', folder, '--config', join(ROOT, 'wrangler.toml')]
  const done = spawnSync(join(BIN, 'wrangler'), args, { cwd: ROOT, encoding: 'utf8' })
  if (done.status !== 0) throw new Error(`wrangler could not bundle the Worker: ${done.stderr}`)
  return readFileSync(join(folder, 'index.js'), 'utf8')
}

const migrate = async (miniflare: Miniflare): Promise<void> => {
  const database = await miniflare.getD1Database('DB')
  const folder = join(ROOT, 'schema', 'migrations')
  const files = readdirSync(folder).filter((name) => name.endsWith('.sql'))
  for (const file of files.sort()) {
    const statements = readFileSync(join(folder, file), 'utf8').split('--> statement-breakpoint')
    await database.batch(statements.map((statement) => database.prepare(statement)))
  }
}

const startNode = (stateDir: string, edgeUrl: string, port: number, joinToken: string, env: Record<string, string>) => {
  const child = spawn(join(BIN, 'node'), ['gpu-node/main.ts'], {
    cwd: ROOT,
    stdio: 'ignore',
    env: {
      ...process.env,
      SPARROW_EDGE_URL: edgeUrl,
      SPARROW_NODE_PORT: String(port),
      SPARROW_STATE_DIR: join(stateDir, 'node'),
      SPARROW_JOIN_TOKEN: joinToken,
      SPARROW_DRAIN_SECONDS: '2',
      ...env,
    },
  })
  process.once('exit', () => child.kill('SIGKILL'))
  return child
}

export interface BareWorker {
  readonly baseUrl: string
  readonly secrets: Secrets
  /** Of its debugger, HTTP; only with `inspect`. */
  inspectorUrl(): Promise<URL>
  dispose(): Promise<void>
}

/** The Worker as it is deployed, with its own D1, objects and bucket, all below `stateDir`. */
export const bootWorker = async (stateDir: string, inspect = false, vars: object = {}): Promise<BareWorker> => {
  const secrets = loadSecrets(stateDir)
  const { workerOptions } = unstable_getMiniflareWorkerOptions(join(ROOT, 'wrangler.toml'))
  const { modulesRules: _, ...options } = workerOptions
  const bindings = Object.assign({}, workerOptions.bindings, secrets, vars)
  const settings: object = {
    ...{ ...options, modules: true, script: bundle(stateDir), bindings, host: HOST, port: 0 },
    ...{ resourcePersistencePath: join(stateDir, 'resources'), unsafeDirectSockets: [{ host: HOST, port: 0 }] },
    ...(inspect ? { inspectorPort: 0 } : {}),
  }
  const miniflare = new Miniflare(convertV4MiniflareOptions(settings as V4MiniflareOptions))
  await miniflare.ready
  // The Worker's own socket: at the usual one Miniflare's entry Worker stands before it.
  const baseUrl = (await miniflare.unsafeGetDirectURL()).origin
  await migrate(miniflare)
  const inspectorUrl = async () => new URL(`http://${HOST}:${(await miniflare.getInspectorURL()).port}`)
  return { baseUrl, secrets, inspectorUrl, dispose: () => miniflare.dispose() }
}

const nodesOf = async (baseUrl: string): Promise<number> =>
  ((await (await fetch(`${baseUrl}/healthz`)).json()) as { nodes: number }).nodes

const ended = (node: ChildProcess): Promise<void> =>
  new Promise((done) => {
    node.once('exit', () => done())
    node.kill()
  })

export const addNode = async (stack: BareStack, nodeEnv: Record<string, string>): Promise<MoreNode> => {
  const before = await nodesOf(stack.baseUrl)
  const [stateDir, port] = [join(stack.stateDir, 'more'), await freePort()]
  const node = startNode(stateDir, stack.baseUrl, port, stack.secrets.JOIN_TOKEN, nodeEnv)
  await eventually(async () => ((await nodesOf(stack.baseUrl)) > before ? true : undefined), 60_000)
  return { url: `http://127.0.0.1:${port}`, pid: node.pid, stateDir, remove: () => ended(node) }
}

/** `vars`: settings of the Worker. */
export const bootBareStack = async (nodeEnv: Record<string, string>, vars: object = {}): Promise<BareStack> => {
  const stateDir = mkdtempSync(join(tmpdir(), 'sparrow-bare-'))
  const { baseUrl, secrets, inspectorUrl, dispose } = await bootWorker(stateDir, true, vars)
  const port = await freePort()
  const node = startNode(stateDir, baseUrl, port, secrets.JOIN_TOKEN, nodeEnv)
  const remove = async (): Promise<void> => {
    await ended(node)
    await dispose()
    rmSync(stateDir, { recursive: true, force: true })
  }
  await eventually(async () => ((await nodesOf(baseUrl)) > 0 ? true : undefined), 60_000)
  return {
    baseUrl,
    secrets,
    inspectorUrl,
    nodeUrl: `http://127.0.0.1:${port}`,
    nodePid: () => node.pid,
    stateDir,
    key: await firstKey(stateDir, baseUrl, secrets, MODEL),
    admin: (method, path, body) => {
      const call = { baseUrl, secret: secrets.ADMIN_SECRET, method, path: `/admin/v1${path}` }
      return adminCall({ ...call, ...(body ? { body } : {}) })
    },
    remove,
  }
}
