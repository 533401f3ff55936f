// Keeps a stack up: what ends by itself is started again, at once the first time, then after pauses that grow, so that a fault that
// passes (a port still taken, a disk full for some seconds) is outlived and one that stays ends with a line that says so.
import { isOperators, type Stack } from './stack.ts'
import type { Failure } from './watch.ts'

/** Before each try, in seconds. */
export const PAUSES: readonly number[] = [0, 1, 3, 10, 30]
const COUNTED_MS = 10 * 60_000

export interface KeepUpOptions {
  /** Seconds before each try; one more end than these within the time is no accident. */
  readonly pauses: readonly number[]
  readonly say: (text: string) => void
  readonly isStopped: () => boolean
  readonly now: () => number
  readonly pause: (ms: number) => Promise<unknown>
}

/** What it said before is in its log. Returns why it gave up; never, once it is stopped. */
export const keepUp = async (
  stack: Pick<Stack, 'failed' | 'restart'>,
  { pauses, say, isStopped, now, pause }: KeepUpOptions,
): Promise<string> => {
  let ends: number[] = []
  let failure: Failure | undefined
  for (;;) {
    const isAgain = failure !== undefined
    failure ??= await stack.failed()
    const { what, log } = failure
    ends = [...ends.filter((at) => at > now() - COUNTED_MS), now()]
    const seconds = pauses[ends.length - 1]
    if (seconds === undefined) return `the ${what} does not stay up; see ${log}`
    const when = seconds === 0 ? '' : ` in ${seconds} s`
    say(
      isAgain
        ? `trying again${when} ...`
        : `the ${what} ended or went silent (see ${log}); starting it again${when} ...`,
    )
    if (seconds > 0) await pause(seconds * 1000)
    try {
      // Whichever of the two it was that kept it from coming back.
      await stack.restart(isAgain ? undefined : what)
    } catch (error) {
      if (!isOperators(error)) throw error
      // Ctrl-C ended what was starting.
      if (isStopped()) return new Promise(() => {})
      say(error.message)
      continue
    }
    failure = undefined
    say(`the ${what} is back`)
  }
}
