// Runs the Worker and its stores, each in a workerd of its own, from the folder of their sockets.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { hasEnded } from '../watch.ts'
import { CRON_SOCKET } from './config.ts'
import type { Prepared } from './prepare.ts'
import { callSocket } from './socket.ts'

const WORKERD = fileURLToPath(new URL('../../node_modules/.bin/workerd', import.meta.url))
/** D1's stand-in needs the flag for its own compatibility flags, the cron's Worker for its. */
const SERVE = ['serve', '--experimental']
const POLL_MS = 20

const exitOf = (name: string, child: ChildProcess): Promise<string> =>
  new Promise((done) => {
    child.once('error', (error) => done(`${name} could not be started: ${error.message}`))
    child.once('exit', (code, signal) => done(`${name} ended (${signal ?? code})`))
  })

export interface RunningWorker {
  /** Settles with what to log once a process has ended. */
  readonly ended: Promise<string>
  stop(signal: NodeJS.Signals): Promise<void>
}

export interface RunOptions {
  readonly env: NodeJS.ProcessEnv
  /** Where a debugger of the Worker listens, if at all. */
  readonly inspectorPort?: number
  /** Called with each process that was started. */
  readonly onStart?: (pid: number) => void
  /** Called when the stores listen; the Worker starts when it is done. */
  readonly onStores?: () => Promise<unknown>
}

export const runWorker = async ({ dir, storeSockets }: Prepared, options: RunOptions): Promise<RunningWorker> => {
  const { env, inspectorPort, onStart, onStores } = options
  const start = (name: string, more: readonly string[] = []) => {
    const args = [...SERVE, `${name}.capnp`, ...more]
    const child = spawn(WORKERD, args, { cwd: dir, env, stdio: ['ignore', 'inherit', 'inherit'] })
    if (child.pid) onStart?.(child.pid)
    return { child, exit: exitOf(`workerd ${name}.capnp`, child) }
  }
  // The stores first: a Worker that asks them before they listen is refused.
  const stores = storeSockets.length > 0 ? [start('stores')] : []
  const over = () => stores.find(({ child }) => hasEnded(child))
  while (!storeSockets.every((socket) => existsSync(join(dir, socket))) && !over()) await sleep(POLL_MS)
  try {
    const dead = over()
    if (dead) throw new Error(await dead.exit)
    await onStores?.()
  } catch (error) {
    for (const { child } of stores) child.kill('SIGKILL')
    throw error
  }
  const worker = start('worker', inspectorPort === undefined ? [] : [`--inspector-addr=127.0.0.1:${inspectorPort}`])
  const processes = [worker, ...stores]
  return {
    ended: Promise.race(processes.map(({ exit }) => exit)),
    // What the Worker still answers may need its stores.
    stop: async (signal) => {
      for (const { child, exit } of processes) {
        child.kill(signal)
        await exit
      }
    },
  }
}

/** Has the scheduled handler run; what it said, `ok` when all went well. */
export const runCron = (): Promise<string> => callSocket(CRON_SOCKET).catch((error: Error) => error.message)
