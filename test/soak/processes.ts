// Memory of the processes that this one has started, from /proc.
import { readdirSync, readFileSync } from 'node:fs'

interface Process {
  readonly pid: number
  readonly parent: number
  readonly name: string
  readonly rssBytes: number
}

const PAGE_BYTES = 4096

const readProcess = (pid: number): Process | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'))
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { pid, name, parent: Number(fields[1]), rssBytes: Number(fields[21]) * PAGE_BYTES }
  } catch {
    return undefined // It has just ended.
  }
}

/** Bytes in memory of every workerd below this process. */
export const workerdBytes = (): number => {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  const all = pids.flatMap((pid) => readProcess(Number(pid)) ?? [])
  const ours = new Set([process.pid])
  for (let before = 0; before < ours.size; ) {
    before = ours.size
    for (const { pid, parent } of all) if (ours.has(parent)) ours.add(pid)
  }
  return all.reduce((sum, one) => sum + (ours.has(one.pid) && one.name === 'workerd' ? one.rssBytes : 0), 0)
}

export const bytesOf = (pid: number | undefined): number => (pid ? (readProcess(pid)?.rssBytes ?? 0) : 0)
