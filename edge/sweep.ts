// The scheduled handler: what is kept for a bounded time only goes, in bounded batches; roll-ups, ledger and evidence stay.
import { type Env, environmentFault } from './env.ts'
import { log, reasonOf } from './log.ts'
import { sweepPrefixes } from './prefix.ts'
import { sweepUsage } from './retention.ts'

export const sweep = async (env: Env): Promise<void> => {
  const fault = environmentFault(env)
  // A time that means nothing must not delete what it does not mean.
  if (fault) return log('error', 'bad_environment', { fault })
  const tasks = { prefix_blocks: () => sweepPrefixes(env.DB), usage: () => sweepUsage(env) }
  for (const [table, task] of Object.entries(tasks)) {
    try {
      const rows = await task()
      if (rows > 0) log('info', 'swept', { table, rows })
    } catch (error) {
      log('error', 'sweep_failed', { table, error: reasonOf(error) })
    }
  }
}
