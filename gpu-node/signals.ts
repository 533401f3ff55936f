// The first SIGTERM or SIGINT drains a node, the second ends the process at once; the journal is sound either way.
import { log, reasonOf } from './log.ts'
import type { RunningNode } from './node.ts'

const EXIT_INTERRUPTED = 130

export const obeySignals = (node: RunningNode): void => {
  let draining = false
  const stop = (signal: string): void => {
    if (draining) {
      log('warn', 'stopped_at_once', { signal })
      process.exit(EXIT_INTERRUPTED)
    }
    draining = true
    node.drain().then(
      () => process.exit(0),
      (error: unknown) => {
        log('error', 'drain_failed', { error: reasonOf(error) })
        process.exit(1)
      },
    )
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop(signal))
}
