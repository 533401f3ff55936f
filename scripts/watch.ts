// Tells which process of the stack ended by itself, or answers nothing any more.
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** A workerd that hangs keeps every request waiting. So often it is asked, and so many silences in a row say so. */
const ASK_EVERY_MS = 2_000
const ANSWER_WITHIN_MS = 10_000
const SILENCES = 3

export interface Failure {
  readonly what: 'Worker' | 'node'
  readonly log: string
}

export const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

export const ended = (child: ChildProcess): Promise<void> =>
  hasEnded(child) ? Promise.resolve() : new Promise((resolve) => child.once('exit', () => resolve()))

const NEVER = new Promise<never>(() => {})

/** Resolves when the address has gone silent; never, once `over` says so. */
const goesSilent = async (url: string, over: () => boolean): Promise<void> => {
  for (let silences = 0; silences < SILENCES; ) {
    await sleep(ASK_EVERY_MS, undefined, { ref: false })
    if (over()) return NEVER
    const answered = await fetch(url, { signal: AbortSignal.timeout(ANSWER_WITHIN_MS) }).catch(() => undefined)
    await answered?.body?.cancel()
    silences = answered ? 0 : silences + 1
  }
}

export class Watch {
  readonly #logs: string
  readonly #url: string
  readonly #over = new WeakSet<ChildProcess>()
  #failures: (Failure & { readonly child: ChildProcess })[] = []
  #wake = (): void => {}
  #stopped = false

  /** `logs`: the folder of node.log and edge.log. `url`: what the Worker always answers. */
  constructor(logs: string, url: string) {
    this.#logs = logs
    this.#url = url
  }

  begin(what: Failure['what'], child: ChildProcess): void {
    const over = () => this.#stopped || this.#over.has(child)
    const silent = what === 'Worker' ? goesSilent(this.#url, over) : NEVER
    void Promise.race([ended(child), silent]).then(() => {
      if (over()) return
      this.#over.add(child)
      this.#failures.push({ what, log: join(this.#logs, what === 'node' ? 'node.log' : 'edge.log'), child })
      this.#wake()
    })
  }

  /** From now on the child may end, and that it did is not told any more. */
  end(child: ChildProcess): void {
    this.#over.add(child)
    this.#failures = this.#failures.filter((failure) => failure.child !== child)
  }

  stop(): void {
    this.#stopped = true
  }

  /** Failures in order, each told once. */
  async failed(): Promise<Failure> {
    for (;;) {
      const failure = this.#failures.shift()
      if (failure) return failure
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}
