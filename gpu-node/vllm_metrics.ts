// Sparrow's numbers under the names that vLLM's dashboards and autoscalers ask for. Tokens and times are of runs: a run with
// several choices has one prompt. https://docs.vllm.ai/en/stable/usage/metrics/
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { FinishReason } from '../schema/wire.ts'
import type { RunTimes } from './run_clock.ts'

const SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 640]
const ITL_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 40]
const TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144]

const REASON: Readonly<Record<FinishReason, 'stop' | 'length' | 'abort' | 'error'>> = {
  ...{ stop: 'stop', tool_calls: 'stop', length: 'length', cancelled: 'abort', error: 'error', node_lost: 'error' },
}

const HISTOGRAMS = {
  time_to_first_token_seconds: ['Arrival to first token', SECONDS],
  inter_token_latency_seconds: ['Between two tokens of one answer', ITL_SECONDS],
  e2e_request_latency_seconds: ['Arrival to last token', SECONDS],
  request_queue_time_seconds: ['Arrival until the engine took the run', SECONDS],
  request_prefill_time_seconds: ['Taken until first token', SECONDS],
  request_decode_time_seconds: ['First token to last', SECONDS],
  request_inference_time_seconds: ['Taken until last token', SECONDS],
  request_prompt_tokens: ['Prompt tokens of a run', TOKENS],
  request_generation_tokens: ['Tokens sampled for a run', TOKENS],
} as const
type Name = keyof typeof HISTOGRAMS

/** What the engine keeps, read when asked. */
export interface VllmGauges {
  readonly running: () => number
  readonly waiting: () => number
  /** Share of the KV pages that running sequences hold, 0 to 1. */
  readonly cacheUsage: () => number
  readonly preemptions: () => number
}

export class VllmMetrics {
  readonly #registry: Registry
  #labels = { model_name: '' }
  readonly #histograms: Readonly<Record<Name, Histogram<'model_name'>>>
  readonly #queries: Counter<'model_name'>
  readonly #hits: Counter<'model_name'>
  readonly #prompt: Counter<'model_name'>
  readonly #generated: Counter<'model_name'>
  readonly #success: Counter<'model_name' | 'finished_reason'>

  constructor(registry: Registry) {
    this.#registry = registry
    const registers = [registry]
    const counter = (name: string, help: string) =>
      new Counter({ name: `vllm:${name}_total`, help, labelNames: ['model_name'], registers })
    this.#queries = counter('prefix_cache_queries', 'Prompt tokens looked up in the prefix cache')
    this.#hits = counter('prefix_cache_hits', 'Prompt tokens found there, whose prefill was skipped')
    this.#prompt = counter('prompt_tokens', 'Prompt tokens processed, cached ones included')
    this.#generated = counter('generation_tokens', 'Tokens sampled')
    this.#success = new Counter({
      name: 'vllm:request_success_total',
      help: 'Runs that ended, by reason: stop, length, abort, error',
      labelNames: ['model_name', 'finished_reason'],
      registers,
    })
    const made = Object.entries(HISTOGRAMS).map(([name, [help, buckets]]) => [
      name,
      new Histogram({ name: `vllm:${name}`, help, buckets: [...buckets], labelNames: ['model_name'], registers }),
    ])
    this.#histograms = Object.fromEntries(made) as Record<Name, Histogram<'model_name'>>
  }

  /** Zeros from the start: a rate over a counter that is not there yet is a gap in a chart. */
  open(model: string, gauges: VllmGauges): void {
    this.#labels = { model_name: model }
    for (const counter of [this.#queries, this.#hits, this.#prompt, this.#generated]) counter.inc(this.#labels, 0)
    for (const finished_reason of new Set(Object.values(REASON))) {
      this.#success.inc({ ...this.#labels, finished_reason }, 0)
    }
    for (const histogram of Object.values(this.#histograms)) histogram.zero(this.#labels)
    this.#read('gauge', 'num_requests_running', 'Runs the engine works on', gauges.running)
    this.#read('gauge', 'num_requests_waiting', 'Runs that wait for the engine', gauges.waiting)
    this.#read('gauge', 'kv_cache_usage_perc', 'KV pages held by running sequences, 1 is all', gauges.cacheUsage)
    this.#read('counter', 'num_preemptions_total', 'Sequences that gave their pages back', gauges.preemptions)
  }

  /** The engine took a run. */
  admitted(promptTokens: number, cachedTokens: number): void {
    this.#queries.inc(this.#labels, promptTokens)
    this.#hits.inc(this.#labels, cachedTokens)
  }

  sampled(tokens: number): void {
    this.#generated.inc(this.#labels, tokens)
  }

  firstToken(seconds: number): void {
    this.#observe('time_to_first_token_seconds', seconds)
  }

  betweenTokens(seconds: number): void {
    this.#observe('inter_token_latency_seconds', seconds)
  }

  /** `promptTokens`: found and computed, all of the prompt unless the run was cut in prefill. */
  ended(finish: FinishReason, times: RunTimes, promptTokens: number, sampledTokens: number): void {
    const finished_reason = REASON[finish]
    this.#success.inc({ ...this.#labels, finished_reason })
    this.#prompt.inc(this.#labels, promptTokens)
    this.#observe('request_prompt_tokens', promptTokens)
    this.#observe('request_generation_tokens', sampledTokens)
    this.#observe('e2e_request_latency_seconds', times.whole)
    this.#observe('request_queue_time_seconds', times.queue)
    if (times.prefill === undefined || times.decode === undefined) return
    this.#observe('request_prefill_time_seconds', times.prefill)
    this.#observe('request_decode_time_seconds', times.decode)
    this.#observe('request_inference_time_seconds', times.prefill + times.decode)
  }

  #observe(name: Name, value: number): void {
    this.#histograms[name].observe(this.#labels, value)
  }

  #read(kind: 'gauge' | 'counter', name: string, help: string, read: () => number): void {
    const labels = this.#labels
    const config = { name: `vllm:${name}`, help, labelNames: ['model_name'] as const, registers: [this.#registry] }
    if (kind === 'gauge') {
      new Gauge({
        ...config,
        collect() {
          this.set(labels, read())
        },
      })
    } else {
      new Counter({
        ...config,
        collect() {
          this.reset()
          this.inc(labels, read())
        },
      })
    }
  }
}
