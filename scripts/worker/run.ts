// Runs the Worker and its stores, each in a workerd of its own, from the folder of their sockets.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { CRON_SOCKET } from './config.ts'
import type { Prepared } from './prepare.ts'

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

/** `inspectorPort`: where a debugger of the Worker listens, if at all. */
export const runWorker = async (
  { dir, storeSockets }: Prepared,
  env: NodeJS.ProcessEnv,
  inspectorPort?: number,
): Promise<RunningWorker> => {
  const start = (name: string, more: readonly string[] = []) => {
    const args = [...SERVE, `${name}.capnp`, ...more]
    const child = spawn(WORKERD, args, { cwd: dir, env, stdio: ['ignore', 'inherit', 'inherit'] })
    return { child, exit: exitOf(`workerd ${name}.capnp`, child) }
  }
  // The stores first: a Worker that asks them before they listen is refused.
  const stores = storeSockets.length > 0 ? [start('stores')] : []
  const over = () => stores.some(({ child: { exitCode, signalCode } }) => exitCode !== null || signalCode !== null)
  while (!storeSockets.every((socket) => existsSync(join(dir, socket))) && !over()) await sleep(POLL_MS)
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

/** Has the scheduled handler run; what it said, `ok` when all went well. The current folder is that of the sockets. */
export const runCron = (): Promise<string> =>
  new Promise((done) => {
    const call = request({ socketPath: CRON_SOCKET }, (answer) => {
      let said = ''
      answer.setEncoding('utf8').on('data', (part) => {
        said += part
      })
      answer.on('end', () => done(said))
    })
    call.on('error', ({ message }) => done(message))
    call.end()
  })
