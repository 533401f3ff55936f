// The account's name, its keys, and what each family of keys may do. A family is a key with all that it was rotated into.
import type { KeyLimits } from '../../schema/key_limits.ts'
import { first } from './tables.ts'

export interface KeyRecord {
  readonly id: string
  readonly hash: string
  readonly family: string
  readonly expiresAt: number | null
  readonly limits: KeyLimits
}

export interface ActiveKey {
  readonly id: string
  readonly family: string
  readonly limits: KeyLimits
}

const limitsOf = (sql: SqlStorage): KeyLimits =>
  JSON.parse(first<{ limits: string }>(sql, 'SELECT limits FROM account')?.limits ?? '{}') as KeyLimits

export const keyStore = (sql: SqlStorage) => {
  /** Every admission and every settlement asks. */
  let accountLimits = limitsOf(sql)
  return {
    accountLimits: (): KeyLimits => accountLimits,
    setAccountLimits: (limits: KeyLimits): void => {
      sql.exec('UPDATE account SET limits = ?', JSON.stringify(limits))
      accountLimits = limitsOf(sql)
    },
    ...familyStore(sql),
  }
}

const familyStore = (sql: SqlStorage) => ({
  setAccountId: (id: string): void => {
    sql.exec('INSERT OR IGNORE INTO account (id, balance, seq) VALUES (?, 0, 0)', id)
  },
  putKey: (key: KeyRecord): void => {
    sql.exec(
      'INSERT OR IGNORE INTO keys (id, hash, family, expires_at, limits, revoked) VALUES (?, ?, ?, ?, ?, 0)',
      ...[key.id, key.hash, key.family, key.expiresAt, JSON.stringify(key.limits)],
    )
  },
  setFamilyLimits: (family: string, limits: KeyLimits): void => {
    sql.exec('UPDATE keys SET limits = ? WHERE family = ?', JSON.stringify(limits), family)
  },
  familyLimits: (family: string): KeyLimits =>
    JSON.parse(
      first<{ limits: string }>(sql, 'SELECT limits FROM keys WHERE family = ? LIMIT 1', family)?.limits ?? '{}',
    ) as KeyLimits,
  /** Never later than it was: an expiry that stands is not put off. */
  expireKey: (id: string, at: number): void => {
    sql.exec('UPDATE keys SET expires_at = min(coalesce(expires_at, ?1), ?1) WHERE id = ?2', at, id)
  },
  revokeKey: (id: string): void => {
    sql.exec('UPDATE keys SET revoked = 1 WHERE id = ?', id)
  },
  activeKey: (hash: string, now: number): ActiveKey | undefined => {
    const row = first<{ id: string; family: string; limits: string }>(
      sql,
      'SELECT id, family, limits FROM keys WHERE hash = ? AND revoked = 0 AND (expires_at IS NULL OR expires_at > ?)',
      ...[hash, now],
    )
    return row && { id: row.id, family: row.family, limits: JSON.parse(row.limits) as KeyLimits }
  },
  activeKeyIds: (now: number): string[] =>
    sql
      .exec<{ id: string }>(
        'SELECT id FROM keys WHERE revoked = 0 AND (expires_at IS NULL OR expires_at > ?) ORDER BY id',
        now,
      )
      .toArray()
      .map(({ id }) => id),
})
