// Which faults happen: drawn from one seeded stream, counted by name, off while the simulation sets up and ends.
import { random } from '../router/trace.ts'

/** How often each fault happens where it can, out of one. */
const RATES = {
  request_lost: 0.03,
  request_twice: 0.05,
  answer_lost: 0.05,
  old_segment_again: 0.05,
  node_killed_before_sending: 0.01,
  node_killed_before_answer: 0.01,
  node_killed_in_round: 0.1,
  run_failed_at_node: 0.01,
  run_moved_after_kill: 0.5,
  edge_answered_error: 0.005,
  client_repeats: 0.005,
  sent_elsewhere: 0.01,
  object_call_lost: 0.002,
  object_restarted_between_writes: 0.001,
  object_restarted_before_answer: 0.002,
  d1_failed: 0.01,
  d1_batch_half_done: 0.02,
  d1_answer_lost: 0.02,
  r2_failed: 0.01,
  r2_answer_lost: 0.01,
} as const
export type Fault = keyof typeof RATES

export class InjectedFault extends Error {}

/** Drizzle wraps what a statement throws. */
export const isInjected = (error: unknown): boolean =>
  error instanceof InjectedFault || (error instanceof Error && error.cause instanceof InjectedFault)

export class Faults {
  readonly next: () => number
  readonly counts: Record<string, number> = {}
  #on = false

  constructor(seed: number) {
    this.next = random(seed)
  }

  set on(on: boolean) {
    this.#on = on
  }

  happens(fault: Fault): boolean {
    if (!this.#on || this.next() >= RATES[fault]) return false
    this.counts[fault] = (this.counts[fault] ?? 0) + 1
    return true
  }

  throwIf(fault: Fault): void {
    if (this.happens(fault)) throw new InjectedFault(fault)
  }

  /** An integer from 0 up to, not including, `below`. */
  below(below: number): number {
    return Math.floor(this.next() * below)
  }
}

/** Lets `n` turns of the event loop pass. */
export const turns = async (n: number): Promise<void> => {
  for (let i = 0; i < n; i++) await new Promise<void>((done) => setImmediate(done))
}
