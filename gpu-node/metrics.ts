// Prometheus metrics of one node.
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Engine } from './engine/engine.ts'

export interface Metrics {
  readonly registry: Registry
  readonly runs: Counter<'finish'>
  readonly tokens: Counter<'kind'>
  readonly receipts: Counter<'outcome'>
  readonly ttft: Histogram
  readonly itl: Histogram
}

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export const createMetrics = (engine: Engine, pendingReceipts: () => number): Metrics => {
  const registry = new Registry()
  const registers = [registry]
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name: `sparrow_${name}`,
      help,
      registers,
      collect() {
        this.set(read())
      },
    })
  }
  gauge('sequences_running', 'Sequences in the engine', () => engine.stats().running)
  gauge('sequences_waiting', 'Sequences waiting for pages', () => engine.stats().waiting)
  gauge('kv_pages', 'KV pages of 64 tokens', () => engine.stats().kvPages)
  gauge('kv_pages_used', 'KV pages in use by sequences', () => engine.stats().kvPagesUsed)
  gauge('kv_pages_cached', 'KV pages kept for reuse', () => engine.stats().kvPagesCached)
  gauge('engine_steps', 'Steps since start', () => engine.stats().steps)
  gauge('sparse_queries', 'Queries that saw more than index_topk positions', () => engine.stats().sparseQueries)
  gauge('receipts_pending', 'Receipts not yet acknowledged', pendingReceipts)
  return {
    registry,
    runs: new Counter({ name: 'sparrow_runs_total', help: 'Runs by finish', labelNames: ['finish'], registers }),
    tokens: new Counter({
      name: 'sparrow_tokens_total',
      help: 'Tokens: hit, miss, output',
      labelNames: ['kind'],
      registers,
    }),
    receipts: new Counter({
      name: 'sparrow_receipts_total',
      help: 'Receipts by outcome',
      labelNames: ['outcome'],
      registers,
    }),
    ttft: new Histogram({
      name: 'sparrow_ttft_seconds',
      help: 'Run received to first token',
      buckets: SECONDS,
      registers,
    }),
    itl: new Histogram({
      name: 'sparrow_itl_seconds',
      help: 'Gap between steps of one run',
      buckets: SECONDS,
      registers,
    }),
  }
}
