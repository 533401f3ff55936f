// What the scheduler did, as Prometheus reads it.
import type { Engine } from './engine/engine.ts'
import type { Gauges } from './metrics.ts'

export const scheduleCounters = (engine: Engine): Gauges => ({
  sparrow_preemptions_total: {
    help: 'Times that a running sequence gave its pages back',
    read: () => engine.stats().preemptions,
  },
  sparrow_recomputed_tokens_total: {
    help: 'Tokens computed again after that',
    read: () => engine.stats().recomputedTokens,
  },
  sparrow_admitted_total: { help: 'Sequences that began to run', read: () => engine.stats().admitted },
  sparrow_queue_wait_seconds_total: {
    help: 'How long they had waited for the engine, in all',
    read: () => engine.stats().queueWaitMicroseconds / 1e6,
  },
  sparrow_deadlines_total: { help: 'Sequences that a deadline ended', read: () => engine.stats().deadlines },
})
