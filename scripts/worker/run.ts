// Runs the Worker in workerd, or its stores alone, from the folder of their configurations.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { hasEnded } from '../watch.ts'
import { CRON_SOCKET, socketOfDatabase } from './config.ts'
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

export interface RunOptions {
  readonly env: NodeJS.ProcessEnv
  /** Where a debugger of the Worker listens, if at all. */
  readonly inspectorPort?: number
  /** Called with each process that was started. */
  readonly onStart?: (pid: number) => void
}

const start = ({ dir }: Prepared, name: string, { env, inspectorPort, onStart }: RunOptions) => {
  const inspector = inspectorPort === undefined ? [] : [`--inspector-addr=127.0.0.1:${inspectorPort}`]
  const args = [...SERVE, `${name}.capnp`, ...inspector]
  const child = spawn(WORKERD, args, { cwd: dir, env, stdio: ['ignore', 'inherit', 'inherit'] })
  if (child.pid) onStart?.(child.pid)
  return { child, exit: exitOf(`workerd ${name}.capnp`, child) }
}

/** Runs the stores without the Worker while `work` is done on their databases, each at its socket. Throws what ended them, or what `work` throws. */
export const withStores = async <T>(prepared: Prepared, options: RunOptions, work: () => Promise<T>): Promise<T> => {
  const { child, exit } = start(prepared, 'stores', options)
  const sockets = prepared.databases.map((database) => join(prepared.dir, socketOfDatabase(database)))
  try {
    while (!sockets.every((socket) => existsSync(socket))) {
      if (hasEnded(child)) throw new Error(await exit)
      await sleep(POLL_MS)
    }
    // A socket is there a moment before it is listened on.
    await sleep(POLL_MS)
    return await work()
  } finally {
    // The Worker opens the same files, and whoever comes next makes the same sockets.
    child.kill()
    await exit
    for (const socket of sockets) rmSync(socket, { force: true })
  }
}

export interface RunningWorker {
  /** Settles with what to log once the process has ended. */
  readonly ended: Promise<string>
  stop(signal: NodeJS.Signals): Promise<void>
}

export const runWorker = (prepared: Prepared, options: RunOptions): RunningWorker => {
  const { child, exit } = start(prepared, 'worker', options)
  return {
    ended: exit,
    stop: async (signal) => {
      child.kill(signal)
      await exit
    },
  }
}

/** Has the scheduled handler run; what it said, `ok` when all went well. */
export const runCron = (): Promise<string> => callSocket(CRON_SOCKET).catch((error: Error) => error.message)
