// What Prometheus reads at /metrics, and the measured prefill speed that heartbeats carry.
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { VllmMetrics } from './vllm_metrics.ts'

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const ITL_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

/** Values that are read when Prometheus asks, by metric name. */
export type Gauges = Readonly<Record<string, { readonly help: string; readonly read: () => number }>>

export class Metrics {
  readonly prefix = new PrefixFigures()
  readonly #registry = new Registry()
  /** The same under vLLM's names. */
  readonly vllm = new VllmMetrics(this.#registry)
  readonly #requests: Counter<'finish'>
  readonly #refused: Counter<'code'>
  readonly #tokens: Counter<'kind'>
  readonly #receipts: Counter<'outcome'>
  readonly #ttft: Histogram
  readonly #itl: Histogram

  constructor() {
    const registers = [this.#registry]
    const counter = <T extends string>(name: string, help: string, label: T) =>
      new Counter({ name, help, labelNames: [label], registers })
    this.#requests = counter('sparrow_requests_total', 'Runs by how they finished', 'finish')
    this.#refused = counter('sparrow_refused_total', 'Runs refused before any work, by error code', 'code')
    this.#tokens = counter('sparrow_tokens_total', 'Receipted tokens: hit, miss, output, reasoning', 'kind')
    this.#receipts = counter('sparrow_receipts_total', 'Receipts the edge acknowledged or refused', 'outcome')
    this.#ttft = new Histogram({
      name: 'sparrow_ttft_seconds',
      help: 'Request to first token',
      buckets: SECONDS,
      registers,
    })
    this.#itl = new Histogram({
      name: 'sparrow_itl_seconds',
      help: 'Between two tokens of a run',
      buckets: ITL_SECONDS,
      registers,
    })
  }

  /** Counts that somebody else keeps, since the start. */
  addCounters(counters: Gauges): void {
    for (const [name, { help, read }] of Object.entries(counters)) {
      new Counter({
        name,
        help,
        registers: [this.#registry],
        collect() {
          this.reset()
          this.inc(read())
        },
      })
    }
  }

  addGauges(gauges: Gauges): void {
    for (const [name, { help, read }] of Object.entries(gauges)) {
      new Gauge({
        name,
        help,
        registers: [this.#registry],
        collect() {
          this.set(read())
        },
      })
    }
  }

  finished(finish: string, tokens: { hit: number; miss: number; output: number; reasoning: number }): void {
    this.#requests.inc({ finish })
    for (const kind of ['hit', 'miss', 'output', 'reasoning'] as const) this.#tokens.inc({ kind }, tokens[kind])
  }

  refused(code: string): void {
    this.#refused.inc({ code })
  }

  receipts(outcome: 'acknowledged' | 'refused', count: number): void {
    this.#receipts.inc({ outcome }, count)
  }

  firstToken(seconds: number): void {
    this.#ttft.observe(seconds)
    this.vllm.firstToken(seconds)
  }

  /** `tokens` came together, `seconds` after those before. */
  betweenTokens(seconds: number, tokens: number): void {
    for (let i = 0; i < tokens; i++) {
      this.#itl.observe(seconds / tokens)
      this.vllm.betweenTokens(seconds / tokens)
    }
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  text(): Promise<string> {
    return this.#registry.metrics()
  }
}

/** Prompt tokens since the start, and how well the edge's index knew which of them were in the cache. */
export class PrefixFigures {
  promptTokens = 0
  cachedTokens = 0
  predictedTokens = 0
  /** Predicted and found: the smaller of the two, run by run. */
  predictedRightTokens = 0

  observe(prompt: number, cached: number, predicted: number): void {
    this.promptTokens += prompt
    this.cachedTokens += cached
    this.predictedTokens += predicted
    this.predictedRightTokens += Math.min(cached, predicted)
  }
}

/** Prompt tokens a second, as recent runs saw it, others beside them included. */
export class PrefillSpeed {
  #speed = 0

  get tokensPerSecond(): number {
    return this.#speed
  }

  /** Short prefills say more about the step than about the speed, and are left out. */
  observe(tokens: number, milliseconds: number): void {
    if (tokens < 32 || milliseconds <= 0) return
    const now = (tokens / milliseconds) * 1000
    this.#speed = this.#speed === 0 ? now : 0.8 * this.#speed + 0.2 * now
  }
}
