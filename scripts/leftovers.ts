// Processes that a stack started and could not end, since it was killed itself: written down as they start, ended at the next start
// on the same state.
import { appendFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const GRACE_MS = 10_000

const fileOf = (stateDir: string): string => join(stateDir, 'processes')

/**
 * `/proc/PID/stat` from the state on; `undefined` where no process has the id. One that has ended, with all its threads, is none, though it
 * is listed until its parent asks how it ended: the first process of many a container never does.
 */
const statOf = (pid: number | string): readonly string[] | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' && fields[17] === '1' ? undefined : fields
  } catch {
    return undefined
  }
}

/** Which process has the id: boot and start time, or `undefined` where none has. Linux only: elsewhere nothing is known to be ours, and nothing is ended. */
const identityOf = (pid: number): string | undefined => {
  const stat = statOf(pid)
  return stat && `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()} ${stat[19]}`
}

interface Started {
  readonly stack: number
  readonly stackIs?: string
  readonly pid: number
  readonly pidIs?: string
  /** Absent: led by `pid` itself. */
  readonly group?: number
}

/** Notes that this process started `pid`, and what group it is in; a group outlives its leader. */
export const remember = (stateDir: string, pid: number, group?: number): void => {
  const [stack, stackIs, pidIs] = [process.pid, identityOf(process.pid), identityOf(pid)]
  appendFileSync(fileOf(stateDir), `${JSON.stringify({ stack, stackIs, pid, pidIs, group })}\n`)
}

/** A line that was torn names nothing. */
const parsed = (line: string): Started[] => {
  try {
    return [JSON.parse(line) as Started]
  } catch {
    return []
  }
}

const isStill = (pid: number, identity: string | undefined): boolean =>
  identity !== undefined && identityOf(pid) === identity

const signal = (group: number, name: NodeJS.Signals): void => {
  try {
    process.kill(-group, name)
  } catch {
    // The group is gone already.
  }
}

const hasMembers = (group: number): boolean =>
  readdirSync('/proc').some((pid) => /^\d+$/.test(pid) && statOf(pid)?.[2] === String(group))

/** True when all groups are gone. */
const gone = async (groups: readonly number[], ms: number): Promise<boolean> => {
  for (const deadline = Date.now() + ms; Date.now() < deadline; ) {
    if (!groups.some(hasMembers)) return true
    await new Promise((done) => setTimeout(done, 50))
  }
  return false
}

const startedOn = (stateDir: string): Started[] => {
  const file = fileOf(stateDir)
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').flatMap(parsed) : []
}

/** The process that runs a stack on this state now, if one does. */
export const stackOn = (stateDir: string): number | undefined =>
  startedOn(stateDir).find((one) => isStill(one.stack, one.stackIs) && isStill(one.pid, one.pidIs))?.stack

/** Ends what a stack that is gone left running; a node drains first. Returns how many. */
export const endLeftovers = async (stateDir: string): Promise<number> => {
  const file = fileOf(stateDir)
  if (!existsSync(file)) return 0
  const started = startedOn(stateDir)
  // Of a stack that runs, its record stays.
  const kept = started.filter(({ stack, stackIs }) => isStill(stack, stackIs))
  const still = started.filter((one) => !kept.includes(one) && isStill(one.pid, one.pidIs))
  const left = [...new Set(still.map(({ pid, group = pid }) => group))]
  for (const group of left) signal(group, 'SIGTERM')
  if (!(await gone(left, GRACE_MS))) {
    for (const group of left) signal(group, 'SIGKILL')
    await gone(left, GRACE_MS)
  }
  if (kept.length === 0) rmSync(file, { force: true })
  else writeFileSync(file, kept.map((one) => `${JSON.stringify(one)}\n`).join(''))
  return left.length
}
