// Tells which process of the stack ended by itself, or answers nothing any more.
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** A process that hangs keeps every request waiting. So often it is asked, and so many silences in a row say so. */
const PACE = { everyMs: 2_000, withinMs: 10_000 }
const SILENCES = 3

export interface Failure {
  readonly what: 'Worker' | 'node'
  readonly log: string
}

export const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

export const ended = (child: ChildProcess): Promise<void> =>
  hasEnded(child) ? Promise.resolve() : new Promise((resolve) => child.once('exit', () => resolve()))

const NEVER = new Promise<never>(() => {})

/** Where a process is asked whether it lives; a node says 503 where its engine stands still. The Worker always answers, whatever it says. */
const LIVES = { Worker: ['/healthz', () => true], node: ['/livez', ({ ok }: Response) => ok] } as const

/** Resolves when `what` has gone silent; never, once `over` says so. */
const goesSilent = async (what: Failure['what'], baseUrl: string, over: () => boolean, pace = PACE): Promise<void> => {
  const [path, lives] = LIVES[what]
  for (let silences = 0; silences < SILENCES; ) {
    await sleep(pace.everyMs, undefined, { ref: false })
    if (over()) return NEVER
    const answer = await fetch(baseUrl + path, { signal: AbortSignal.timeout(pace.withinMs) }).catch(() => undefined)
    await answer?.body?.cancel()
    silences = answer && lives(answer) ? 0 : silences + 1
  }
}

export class Watch {
  readonly #logs: string
  readonly #urls: Readonly<Record<Failure['what'], string>>
  readonly #pace: typeof PACE
  readonly #over = new WeakSet<ChildProcess>()
  #failures: (Failure & { readonly child: ChildProcess })[] = []
  #wake = (): void => {}
  #stopped = false

  /** `logs`: the folder of node.log and edge.log. */
  constructor(logs: string, urls: Readonly<Record<Failure['what'], string>>, pace = PACE) {
    this.#logs = logs
    this.#urls = urls
    this.#pace = pace
  }

  begin(what: Failure['what'], child: ChildProcess): void {
    const over = () => this.#stopped || this.#over.has(child)
    void Promise.race([ended(child), goesSilent(what, this.#urls[what], over, this.#pace)]).then(() => {
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
