// Processes that a stack started and could not end, since it was killed itself: written down as they start, ended at the next start
// on the same state.
import { appendFileSync, existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

const GRACE_MS = 10_000

const fileOf = (stateDir: string): string => join(stateDir, 'processes')

/** Its command line, or `undefined` where no such process runs. Linux only: elsewhere nothing is known to be ours, and nothing is ended. */
const commandOf = (pid: number): string | undefined => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8') || undefined
  } catch {
    return undefined
  }
}

/** Notes that this process started `pid` with `args`, and that it leads a group of its own. */
export const remember = (stateDir: string, pid: number, args: readonly string[]): void =>
  appendFileSync(fileOf(stateDir), `${JSON.stringify({ stack: process.pid, pid, args })}\n`)

interface Started {
  readonly stack: number
  readonly pid: number
  readonly args: readonly string[]
}

/** Still the process that was started, and the stack that did is gone. */
const isLeft = ({ stack, pid, args }: Started): boolean =>
  commandOf(pid)?.includes(args.join('\0')) === true && !commandOf(stack)?.includes('serve.ts')

/** False where the group is gone. */
const signal = (pid: number, name: NodeJS.Signals | 0): boolean => {
  try {
    return process.kill(-pid, name)
  } catch {
    return false
  }
}

/** True when all groups are gone. */
const gone = async (pids: readonly number[], ms: number): Promise<boolean> => {
  for (const deadline = Date.now() + ms; Date.now() < deadline; ) {
    if (!pids.some((pid) => signal(pid, 0))) return true
    await new Promise((done) => setTimeout(done, 50))
  }
  return false
}

/** Ends what a stack that is gone left running; a node drains first. Returns how many. */
export const endLeftovers = async (stateDir: string): Promise<number> => {
  const file = fileOf(stateDir)
  if (!existsSync(file)) return 0
  const lines = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line.endsWith('}'))
  const left = lines
    .map((line) => JSON.parse(line) as Started)
    .filter(isLeft)
    .map(({ pid }) => pid)
  for (const pid of left) signal(pid, 'SIGTERM')
  if (!(await gone(left, GRACE_MS))) {
    for (const pid of left) signal(pid, 'SIGKILL')
    await gone(left, GRACE_MS)
  }
  rmSync(file, { force: true })
  return left.length
}
