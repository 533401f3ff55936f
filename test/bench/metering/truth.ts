// What really happened to each run, written down beside the system under test: which attempt counts, whether it was closed, with which
// counts. Runs are numbered; the number stands in the request id.
import type { Receipt } from '../../../schema/wire.ts'

const BASE = 1_700_000_000_000

export const requestIdOf = (run: number): string => {
  const time = (BASE + run).toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${run.toString(16).padStart(12, '0')}`
}
export const runOf = (requestId: string): number => Number.parseInt(requestId.slice(-12), 16)

export const ATTEMPTS_MAX = 3

export class Truth {
  readonly runs: number
  readonly account: Uint16Array
  /** The attempt that counts; 0 when the run was never admitted. */
  readonly attempt: Uint8Array
  readonly isVoid: Uint8Array
  /** Tokens of the closed record of attempt a at `run * ATTEMPTS_MAX + a - 1`; hit is -1 before there is one. */
  readonly hit: Int32Array
  readonly miss: Int32Array
  readonly output: Int32Array
  readonly isIdleError: Uint8Array
  /** 1: a repetition, or sent away from its prefix: it may cost less than its tokens. */
  readonly mayCredit: Uint8Array
  closedRecords = 0
  /** Records that a restarted node told otherwise than before. */
  changed = 0

  constructor(runs: number) {
    this.runs = runs
    this.account = new Uint16Array(runs)
    this.attempt = new Uint8Array(runs)
    this.isVoid = new Uint8Array(runs)
    this.hit = new Int32Array(runs * ATTEMPTS_MAX).fill(-1)
    this.miss = new Int32Array(runs * ATTEMPTS_MAX)
    this.output = new Int32Array(runs * ATTEMPTS_MAX)
    this.isIdleError = new Uint8Array(runs * ATTEMPTS_MAX)
    this.mayCredit = new Uint8Array(runs)
  }

  slot(run: number, attempt = this.attempt[run] ?? 0): number {
    return run * ATTEMPTS_MAX + attempt - 1
  }

  /** A durable CLOSE: seen when it was made, or in the journal that a killed node left behind. */
  closed(r: Receipt): void {
    const at = this.slot(runOf(r.requestId), r.attempt)
    if (this.hit[at] === -1) this.closedRecords++
    else if (this.hit[at] !== r.hitTokens || this.miss[at] !== r.missTokens || this.output[at] !== r.outputTokens)
      this.changed++
    this.hit[at] = r.hitTokens
    this.miss[at] = r.missTokens
    this.output[at] = r.outputTokens
    this.isIdleError[at] = r.finish === 'error' && r.hitTokens + r.missTokens + r.outputTokens === 0 ? 1 : 0
  }

  /** Whether the ledger must hold this run, once. */
  isDue(run: number): boolean {
    const at = this.slot(run)
    return this.attempt[run] !== 0 && this.isVoid[run] === 0 && this.hit[at] !== -1 && this.isIdleError[at] === 0
  }
}
