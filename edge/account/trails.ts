// Trails of the account's latest prompts (edge/trail.ts): bounded in number and time, compared only when somebody asks.
import { commonSteps, type Trail } from '../trail.ts'
import { first } from './tables.ts'

/** At most 32 KB each. */
const TRAILS_MAX = 200
const SWEPT_AT_ONCE = 10

type TrailRow = {
  n: number
  request_id: string
  family: string
  at: number
  characters: number
  turns: string
  tags: ArrayBuffer
  scored: number
}

/** A Worker of before may still send trails of one byte a step: they agree with nothing. */
const tagsOf = ({ tags }: TrailRow): Uint16Array<ArrayBuffer> => new Uint16Array(tags.slice(0, tags.byteLength & ~1))

export interface Comparison {
  readonly trail: Trail
  /** The most similar prompt before it that was answered, the newest of several; absent when none has anything in common. */
  readonly with?: {
    readonly requestId: string
    readonly family: string
    readonly at: number
    readonly characters: number
    readonly steps: number
    /** Steps of its whole trail. */
    readonly of: number
  }
}

/** What the edge answered with an error itself was most likely never computed: it explains no miss. */
const BEFORE = `SELECT * FROM trails AS t WHERE n < ?
  AND NOT EXISTS (SELECT 1 FROM holds AS h WHERE h.request_id = t.request_id AND h.state = 'void') ORDER BY n DESC LIMIT ?`

export const trailStore = (sql: SqlStorage) => ({
  addTrail: (requestId: string, family: string, { characters, turns, tags, isScored }: Trail, now: number): void => {
    const added = first<{ n: number }>(
      sql,
      'INSERT INTO trails (request_id, family, at, characters, turns, tags, scored) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING n',
      ...[requestId, family, now, characters, JSON.stringify(turns), tags.buffer, Number(isScored ?? false)],
    )
    const n = added?.n ?? 0
    if (n % SWEPT_AT_ONCE === 0) sql.exec('DELETE FROM trails WHERE n <= ?', n - TRAILS_MAX)
  },
  forgetTrails: (before: number): void => {
    sql.exec('DELETE FROM trails WHERE at <= ?', before)
  },
  oldestTrail: (): number | undefined =>
    first<{ at: number }>(sql, 'SELECT at FROM trails ORDER BY n LIMIT 1')?.at ?? undefined,
  compareTrail: (requestId: string): Comparison | undefined => {
    const own = first<TrailRow>(sql, 'SELECT * FROM trails WHERE request_id = ?', requestId)
    if (!own) return undefined
    const tags = tagsOf(own)
    const turns = JSON.parse(own.turns) as Trail['turns']
    const trail = { characters: own.characters, turns, tags, isScored: own.scored === 1 }
    let best: Comparison['with']
    for (const row of sql.exec<TrailRow>(BEFORE, own.n, TRAILS_MAX)) {
      const other = tagsOf(row)
      const steps = commonSteps(tags, other)
      if (steps <= (best?.steps ?? 0)) continue
      const { request_id: id, family, at, characters } = row
      best = { requestId: id, family, at, characters, steps, of: other.length }
    }
    return best ? { trail, with: best } : { trail }
  },
})
