// The open loop: every request leaves at its time, however many others wait. What is not done `graceMs` after the last one
// has left is cut off and counts as an error.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Sample } from './summary.ts'
import type { Message } from './workload.ts'

export type Asks = (messages: readonly Message[], due: number, stop: AbortSignal) => Promise<Sample>

export interface Load {
  /** Milliseconds from the start, ascending. */
  readonly times: readonly number[]
  readonly of: (i: number) => readonly Message[]
  readonly graceMs: number
}

export const runLoad = async (ask: Asks, { times, of, graceMs }: Load): Promise<Sample[]> => {
  const stop = new AbortController()
  const start = performance.now()
  const answers: Promise<Sample>[] = []
  for (const [i, at] of times.entries()) {
    // Made ahead of its time: a long text takes a while.
    const messages = of(i)
    const wait = start + at - performance.now()
    if (wait > 0) await sleep(wait)
    answers.push(ask(messages, start + at, stop.signal))
  }
  const timer = setTimeout(() => stop.abort(), graceMs)
  const samples = await Promise.all(answers)
  clearTimeout(timer)
  return samples
}
