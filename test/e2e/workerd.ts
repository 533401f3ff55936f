// The Worker with settings of its own and its debugger, and a real node, or several; nothing keeps them up.
import { type ChildProcess, spawn } from 'node:child_process'
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
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

export const startNode = (
  stateDir: string,
  edgeUrl: string,
  port: number,
  joinToken: string,
  env: Record<string, string>,
) => {
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
  /** Of its debugger, HTTP. */
  readonly inspectorUrl: URL
  dispose(): Promise<void>
}

/** The Worker as `npm start` runs it, with its own D1, objects and bucket, all below `stateDir`; `vars` are settings of it. */
export const bootWorker = async (
  stateDir: string,
  vars: Readonly<Record<string, string>> = {},
): Promise<BareWorker> => {
  const secrets = loadSecrets(stateDir)
  appendFileSync(
    join(stateDir, 'dev.env'),
    Object.entries(vars)
      .map(([name, value]) => `${name}=${value}\n`)
      .join(''),
  )
  const [port, inspector] = [await freePort(), await freePort()]
  const args = [
    'scripts/worker/main.ts',
    '--state',
    stateDir,
    '--port',
    String(port),
    '--inspector-port',
    String(inspector),
  ]
  const child = spawn(join(BIN, 'node'), args, { cwd: ROOT, stdio: 'ignore' })
  process.once('exit', () => child.kill())
  const baseUrl = `http://${HOST}:${port}`
  await eventually(async () => (await fetch(`${baseUrl}/healthz`).catch(() => undefined))?.ok || undefined, 60_000)
  return { baseUrl, secrets, inspectorUrl: new URL(`http://${HOST}:${inspector}`), dispose: () => ended(child) }
}

const nodesOf = async (baseUrl: string): Promise<number> =>
  ((await (await fetch(`${baseUrl}/healthz`)).json()) as { nodes: number }).nodes

export const ended = (child: ChildProcess): Promise<void> =>
  new Promise((done) => {
    if (child.exitCode !== null || child.signalCode !== null) return done()
    child.once('exit', () => done())
    child.kill()
  })

export const addNode = async (stack: BareStack, nodeEnv: Record<string, string>): Promise<MoreNode> => {
  const before = await nodesOf(stack.baseUrl)
  const [stateDir, port] = [join(stack.stateDir, 'more'), await freePort()]
  const node = startNode(stateDir, stack.baseUrl, port, stack.secrets.JOIN_TOKEN, nodeEnv)
  await eventually(async () => ((await nodesOf(stack.baseUrl)) > before ? true : undefined), 60_000)
  return { url: `http://127.0.0.1:${port}`, pid: node.pid, stateDir, remove: () => ended(node) }
}

/** `vars`: settings of the Worker. */
export const bootBareStack = async (
  nodeEnv: Readonly<Record<string, string>>,
  vars: Readonly<Record<string, string>> = {},
): Promise<BareStack> => {
  const stateDir = mkdtempSync(join(tmpdir(), 'sparrow-bare-'))
  const { baseUrl, secrets, inspectorUrl, dispose } = await bootWorker(stateDir, vars)
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
