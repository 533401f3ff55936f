// The whole stack on one machine: the Worker in workerd (`worker/`), one node. `npm start` and the
// end-to-end test boot exactly this; only ports and the state directory differ.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseEnv } from 'node:util'
import { lockFolder } from '../gpu-node/folder_lock.ts'
import { endLeftovers, remember, stackOn } from './leftovers.ts'
import { ended, type Failure, hasEnded, Watch } from './watch.ts'
import { writeWhole } from './write_whole.ts'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))
const BIN = join(ROOT, 'node_modules', '.bin')
const HOST = '127.0.0.1'

/** A failure the operator can mend; the message says how, in one line. */
export class StackError extends Error {}

/** What the operator can mend: a StackError, or a disk or folder that refuses. */
export const isOperators = (error: unknown): error is Error =>
  error instanceof StackError || (error instanceof Error && 'syscall' in error)

export interface StackOptions {
  /** Keys, balances, ledger, node journal and logs live here. */
  readonly stateDir: string
  readonly edgePort: number
  readonly nodePort: number
  /** Called once a step begins. */
  readonly progress?: (text: string) => void
  /** Between two turns of the Worker's cron. */
  readonly cronSeconds?: number
  /** Extra settings of the node, e.g. SPARROW_ISA. */
  readonly nodeEnv?: Readonly<Record<string, string>>
}

export interface Stack {
  readonly baseUrl: string
  readonly nodeUrl: string
  readonly secrets: Secrets
  /** Pid of the node process; tests kill it. */
  nodePid(): number | undefined
  /** Starts the node again after it ended. */
  restartNode(): Promise<void>
  /** Kills the Worker and all its processes, as a machine that fails would; the node goes on. */
  killEdge(): Promise<void>
  /** Starts the Worker again on the state it left. */
  restartEdge(): Promise<void>
  /** Starts `what` again, and with it the other where that has ended too: neither is ready without the other. Without `what`: both. */
  restart(what?: Failure['what']): Promise<void>
  /** Settles when a process ended by itself or went silent, at once for one that has; ask again for the next. */
  failed(): Promise<Failure>
  stop(): Promise<void>
}

export interface Secrets {
  readonly SPARROW_SECRET: string
  readonly ADMIN_SECRET: string
  readonly JOIN_TOKEN: string
}

/** As the Worker reads them; the file is written once and kept, since keys and journals depend on it. */
export const loadSecrets = (stateDir: string): Secrets => {
  const file = join(stateDir, 'dev.env')
  if (!existsSync(file)) {
    // Over books that stand, new secrets would make every key and all evidence worthless.
    if (existsSync(join(stateDir, 'd1')))
      throw new StackError(
        `${file} is gone: keys and evidence depend on it. Restore it, or delete ${stateDir} to start anew.`,
      )
    const fresh = () => randomBytes(32).toString('base64url')
    mkdirSync(stateDir, { recursive: true, mode: 0o700 })
    const lines = [`SPARROW_SECRET=${fresh()}`, `ADMIN_SECRET=${fresh()}`, `JOIN_TOKEN=${fresh()}`, '']
    writeWhole(file, lines.join('\n'))
  }
  const values = parseEnv(readFileSync(file, 'utf8'))
  const get = (name: keyof Secrets): string => {
    const value = values[name]
    if (!value) throw new StackError(`${file} has no ${name}. Restore the file, or delete ${stateDir} to start anew.`)
    return value
  }
  return { SPARROW_SECRET: get('SPARROW_SECRET'), ADMIN_SECRET: get('ADMIN_SECRET'), JOIN_TOKEN: get('JOIN_TOKEN') }
}

const assertFree = (port: number, setting: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', () =>
      reject(
        new StackError(
          `port ${port} is busy. Stop the program that uses it, or choose another: ${setting}=${port + 10} npm start`,
        ),
      ),
    )
    probe.listen(port, HOST, () => probe.close(() => resolve()))
  })

const environment = (extra: Readonly<Record<string, string>>): NodeJS.ProcessEnv => ({
  ...process.env,
  PATH: `${BIN}${delimiter}${process.env.PATH ?? ''}`,
  CI: '1',
  WRANGLER_SEND_METRICS: 'false',
  ...extra,
})

/** Children lead process groups of their own, so that stopping one takes its grandchildren (workerd) along. */
const start = (name: string, command: string, args: readonly string[], stateDir: string, env: NodeJS.ProcessEnv) => {
  const child = spawn(command, args, { cwd: ROOT, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  const log = (part: Buffer): void => {
    try {
      appendFileSync(join(stateDir, `${name}.log`), part)
    } catch {
      // A full disk costs lines of the log, not the service.
    }
  }
  // It is there for whoever looks, also of a process that has had nothing to say.
  log(Buffer.alloc(0))
  child.stdout.on('data', log)
  child.stderr.on('data', log)
  started.add(child)
  try {
    if (child.pid) remember(stateDir, child.pid)
  } catch (error) {
    // Who asked for it gets no child to stop, and would start another beside it.
    signalGroup(child, 'SIGKILL')
    throw error
  }
  return child
}

/** However this process ends, nothing it started stays behind; where it is killed, the next start sees to that. */
const started = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of started) signalGroup(child, 'SIGKILL')
})

const signalGroup = (child: ChildProcess, signal: NodeJS.Signals): void => {
  try {
    if (child.pid) process.kill(-child.pid, signal)
  } catch {
    // The group is gone already.
  }
}

const stopGroup = async (child: ChildProcess, graceMs: number): Promise<void> => {
  signalGroup(child, 'SIGTERM')
  const timer = setTimeout(() => signalGroup(child, 'SIGKILL'), graceMs)
  await ended(child)
  clearTimeout(timer)
  signalGroup(child, 'SIGKILL')
  started.delete(child)
}

const waitUntil = async (what: string, log: string, child: ChildProcess, ready: () => Promise<boolean>) => {
  const deadline = Date.now() + 60_000
  while (Date.now() < deadline) {
    if (hasEnded(child)) throw new StackError(`${what} did not start; see ${log}`)
    const isReady = await ready().catch((error: unknown) => {
      if (error instanceof StackError) throw error
      return false
    })
    if (isReady) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new StackError(`${what} was not ready within a minute; see ${log}`)
}

const startEdge = ({ stateDir, edgePort, cronSeconds }: StackOptions): ChildProcess =>
  start(
    'edge',
    join(BIN, 'node'),
    [
      ['scripts/worker/main.ts', '--state', stateDir, '--port', String(edgePort)],
      cronSeconds === undefined ? [] : ['--cron-seconds', String(cronSeconds)],
    ].flat(),
    stateDir,
    environment({}),
  )

/** Of `npm start`: Ctrl-C is not to wait for half a minute. */
const DRAIN_SECONDS = 5

const startNode = (options: StackOptions, secrets: Secrets): ChildProcess =>
  start(
    'node',
    join(BIN, 'node'),
    ['gpu-node/main.ts'],
    options.stateDir,
    environment({
      SPARROW_EDGE_URL: `http://${HOST}:${options.edgePort}`,
      SPARROW_NODE_HOST: HOST,
      SPARROW_NODE_PORT: String(options.nodePort),
      SPARROW_STATE_DIR: join(options.stateDir, 'node'),
      SPARROW_JOIN_TOKEN: secrets.JOIN_TOKEN,
      // Below the grace that stop() gives, so that a drain always ends in receipts, never in a kill.
      SPARROW_DRAIN_SECONDS: String(DRAIN_SECONDS),
      ...options.nodeEnv,
    }),
  )

/** A process that hangs takes calls and answers none. */
const ask = (url: string): Promise<Response> => fetch(url, { signal: AbortSignal.timeout(10_000) })

const answers = async (url: string): Promise<boolean> => (await ask(url)).ok

/** A node counts as ready once the edge routes to it, not merely once it listens. */
const isRouted = async (baseUrl: string): Promise<boolean> => {
  const health = (await (await ask(`${baseUrl}/healthz`)).json()) as { nodes?: number }
  return (health.nodes ?? 0) > 0
}

/** The Worker and the node as they run now, and how either is started again. */
const startBoth = (options: StackOptions, secrets: Secrets, watch: Watch, baseUrl: string, nodeUrl: string) => {
  const { stateDir } = options
  let edge = startEdge(options)
  let node = startNode(options, secrets)
  const edgeReady = () => {
    const log = join(stateDir, 'edge.log')
    return waitUntil('the Worker', log, edge, async () => {
      const health = await ask(`${baseUrl}/healthz`)
      // Waiting mends no setting.
      if (!health.ok && (await health.text()).includes('not configured'))
        throw new StackError(`a setting in ${join(stateDir, 'dev.env')} or wrangler.toml is wrong; ${log} says which`)
      return health.ok
    })
  }
  const nodeReady = () =>
    waitUntil('the node', join(stateDir, 'node.log'), node, async () => {
      return (await answers(`${nodeUrl}/healthz`)) && (await isRouted(baseUrl))
    })
  const ready = async () => {
    await edgeReady()
    await nodeReady()
    watch.begin('Worker', edge)
    watch.begin('node', node)
  }
  const restartEdge = async () => {
    // What is left of the old one may hold the port.
    watch.end(edge)
    await stopGroup(edge, 5_000)
    edge = startEdge(options)
    await edgeReady()
    watch.begin('Worker', edge)
  }
  const restartNode = async () => {
    watch.end(node)
    await stopGroup(node, 10_000)
    node = startNode(options, secrets)
    await nodeReady()
    watch.begin('node', node)
  }
  const restart = async (what?: Failure['what']) => {
    if (what !== 'node' || hasEnded(edge)) await restartEdge()
    if (what !== 'Worker' || hasEnded(node)) await restartNode()
    else await nodeReady()
  }
  const killEdge = async () => {
    watch.end(edge)
    signalGroup(edge, 'SIGKILL')
    await ended(edge)
  }
  const stop = async () => {
    // The node first: it drains and pushes its last receipts while the edge still listens.
    await stopGroup(node, 10_000)
    await stopGroup(edge, 5_000)
  }
  return { ready, restartNode, restart, killEdge, stop, nodePid: () => node.pid }
}

/** Two Workers over one set of books: each would take what it read for what stands. */
const lockHome = (stateDir: string): { release(): void } => {
  mkdirSync(stateDir, { recursive: true, mode: 0o700 })
  let lock: ReturnType<typeof lockFolder>
  try {
    lock = lockFolder(stateDir)
  } catch (error) {
    throw new StackError(`${stateDir} cannot be written: ${(error as Error).message}. Choose another SPARROW_HOME.`)
  }
  if (lock) return lock
  const running = stackOn(stateDir)
  const where = running === undefined ? 'not one that is seen from here: in another container?' : `process ${running}`
  throw new StackError(
    `npm start runs on ${stateDir} already (${where}). Stop it, or give this one its own SPARROW_HOME, SPARROW_PORT and SPARROW_NODE_PORT.`,
  )
}

/** Boots everything and returns when the edge routes to the node. Errors: StackError, with what to do. */
export const bootStack = async (options: StackOptions): Promise<Stack> => {
  const lock = lockHome(options.stateDir)
  try {
    return await boot(options, lock.release)
  } catch (error) {
    lock.release()
    throw error
  }
}

const boot = async (options: StackOptions, release: () => void): Promise<Stack> => {
  const { stateDir, edgePort, nodePort, progress = () => {} } = options
  if ((await endLeftovers(stateDir)) > 0) progress('ended what a start that was killed had left running')
  await assertFree(edgePort, 'SPARROW_PORT')
  await assertFree(nodePort, 'SPARROW_NODE_PORT')
  const secrets = loadSecrets(stateDir)
  progress('starting the Worker and the node')
  const baseUrl = `http://${HOST}:${edgePort}`
  const nodeUrl = `http://${HOST}:${nodePort}`
  const watch = new Watch(stateDir, { Worker: baseUrl, node: nodeUrl })
  const both = startBoth(options, secrets, watch, baseUrl, nodeUrl)
  const stop = async () => {
    watch.stop()
    await both.stop()
    release()
  }
  try {
    await both.ready()
  } catch (error) {
    await stop()
    throw error
  }
  return {
    ...{ baseUrl, nodeUrl, secrets, nodePid: both.nodePid, restartNode: both.restartNode, killEdge: both.killEdge },
    restartEdge: () => both.restart('Worker'),
    restart: both.restart,
    failed: () => watch.failed(),
    stop,
  }
}
