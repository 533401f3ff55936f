// Usage rows stay for `USAGE_DAYS` days (90 unless told); their sums stay for ever in usage_hours, their receipts in R2.
import { v7 as uuidv7 } from 'uuid'
import type { Env } from './env.ts'

const DAY_MS = 24 * 3_600_000
const USAGE_DAYS_DEFAULT = 90
const SWEEP_ROWS = 2_000
const SWEEP_STATEMENTS = 400

export const usageKeptMs = (env: Pick<Env, 'USAGE_DAYS'>): number =>
  Number(env.USAGE_DAYS ?? USAGE_DAYS_DEFAULT) * DAY_MS

/** The mark moves before the rows go, so that the audit never takes a swept row for a lost one. */
const MARK = `
  INSERT INTO sweeps (name, before) VALUES ('usage', ?1) ON CONFLICT (name) DO UPDATE SET before = max(before, excluded.before)`

/** Request ids are in order of time, so the primary key finds the old ones. */
export const SWEEP = `
  DELETE FROM usage WHERE request_id IN (
    SELECT request_id FROM usage WHERE request_id < ?1 AND settled_at < ?2 ORDER BY request_id LIMIT ?3)`

/** Returns the rows that went. */
export const sweepUsage = async (env: Pick<Env, 'DB' | 'USAGE_DAYS'>, now = Date.now()): Promise<number> => {
  const before = now - usageKeptMs(env)
  const oldest = uuidv7({ msecs: before, random: new Uint8Array(16), seq: 0 })
  await env.DB.prepare(MARK).bind(before).run()
  let swept = 0
  for (let i = 0; i < SWEEP_STATEMENTS; i++) {
    const { meta } = await env.DB.prepare(SWEEP).bind(oldest, before, SWEEP_ROWS).run()
    swept += meta.changes
    if (meta.changes < SWEEP_ROWS) break
  }
  return swept
}
