// When a run came, was taken by the engine, had its first token and its last. Seconds, from a clock that never steps back.

export interface RunTimes {
  /** Arrival until the engine took it; until its end where it never did. */
  readonly queue: number
  /** Taken until first token; undefined without one. */
  readonly prefill: number | undefined
  /** First token to last. */
  readonly decode: number | undefined
  readonly whole: number
}

export class RunClock {
  readonly #now: () => number
  readonly #arrived: number
  #taken: number | undefined
  #first: number | undefined
  #last: number | undefined
  /** Of each choice. */
  readonly #lastOf: number[] = []

  /** `now`: milliseconds. */
  constructor(now = () => performance.now()) {
    this.#now = now
    this.#arrived = now()
  }

  sinceArrivalMs(): number {
    return this.#now() - this.#arrived
  }

  taken(): void {
    this.#taken ??= this.#now()
  }

  /** Tokens of a choice arrived; seconds since its last ones, undefined for its first. */
  tokens(choice: number): number | undefined {
    const now = this.#now()
    const before = this.#lastOf[choice]
    this.#first ??= now
    this.#last = this.#lastOf[choice] = now
    return before === undefined ? undefined : (now - before) / 1000
  }

  /** Arrival, or the engine's taking it, to the first token, which has come. */
  get toFirst(): number {
    return ((this.#first ?? this.#now()) - this.#arrived) / 1000
  }

  get prefill(): number {
    const first = this.#first ?? this.#now()
    return (first - (this.#taken ?? first)) / 1000
  }

  /** At the end of the run. */
  times(): RunTimes {
    const now = this.#now()
    const { prefill } = this
    const has = this.#first !== undefined
    return {
      queue: ((this.#taken ?? now) - this.#arrived) / 1000,
      prefill: has ? prefill : undefined,
      decode: has ? ((this.#last ?? now) - (this.#first ?? now)) / 1000 : undefined,
      whole: (now - this.#arrived) / 1000,
    }
  }
}
