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

const limitsOf = (text: string | undefined): KeyLimits => JSON.parse(text ?? '{}') as KeyLimits

type KeyRow = { id: string; family: string; limits: string; expires_at: number | null }

/** The object is the only writer of its tables, so what it read of keys and limits stands until it writes them. */
export const keyStore = (sql: SqlStorage) => {
  let account: KeyLimits | undefined
  const families = new Map<string, KeyLimits>()
  const unrevoked = new Map<string, ActiveKey & { readonly expiresAt: number | null }>()
  const write = (query: string, ...values: SqlStorageValue[]): void => {
    sql.exec(query, ...values)
    account = undefined
    families.clear()
    unrevoked.clear()
  }
  const familyLimits = (family: string): KeyLimits => {
    const known = families.get(family)
    if (known) return known
    const row = first<{ limits: string }>(sql, 'SELECT limits FROM keys WHERE family = ? LIMIT 1', family)
    const limits = limitsOf(row?.limits)
    families.set(family, limits)
    return limits
  }
  const activeKey = (hash: string, now: number): ActiveKey | undefined => {
    let key = unrevoked.get(hash)
    if (!key) {
      const query = 'SELECT id, family, limits, expires_at FROM keys WHERE hash = ? AND revoked = 0'
      const row = first<KeyRow>(sql, query, hash)
      if (!row) return undefined
      key = { id: row.id, family: row.family, limits: limitsOf(row.limits), expiresAt: row.expires_at }
      unrevoked.set(hash, key)
    }
    return key.expiresAt === null || key.expiresAt > now ? key : undefined
  }
  return {
    accountLimits: (): KeyLimits => {
      account ??= limitsOf(first<{ limits: string }>(sql, 'SELECT limits FROM account')?.limits)
      return account
    },
    familyLimits,
    activeKey,
    ...keyWrites(write),
    activeKeyIds: (now: number): string[] =>
      sql
        .exec<{ id: string }>(
          'SELECT id FROM keys WHERE revoked = 0 AND (expires_at IS NULL OR expires_at > ?) ORDER BY id',
          now,
        )
        .toArray()
        .map(({ id }) => id),
  }
}

const keyWrites = (write: (query: string, ...values: SqlStorageValue[]) => void) => ({
  setAccountId: (id: string): void => write('INSERT OR IGNORE INTO account (id, balance, seq) VALUES (?, 0, 0)', id),
  setAccountLimits: (limits: KeyLimits): void => write('UPDATE account SET limits = ?', JSON.stringify(limits)),
  putKey: (key: KeyRecord): void =>
    write(
      'INSERT OR IGNORE INTO keys (id, hash, family, expires_at, limits, revoked) VALUES (?, ?, ?, ?, ?, 0)',
      ...[key.id, key.hash, key.family, key.expiresAt, JSON.stringify(key.limits)],
    ),
  setFamilyLimits: (family: string, limits: KeyLimits): void =>
    write('UPDATE keys SET limits = ? WHERE family = ?', JSON.stringify(limits), family),
  /** Never later than it was: an expiry that stands is not put off. */
  expireKey: (id: string, at: number): void =>
    write('UPDATE keys SET expires_at = min(coalesce(expires_at, ?1), ?1) WHERE id = ?2', at, id),
  /** A key that never arrived is put down as revoked, so that it cannot arrive later. */
  revokeKey: (id: string, hash: string): void =>
    write(
      'INSERT INTO keys (id, hash, expires_at, revoked) VALUES (?1, ?2, NULL, 1) ON CONFLICT (id) DO UPDATE SET revoked = 1',
      ...[id, hash],
    ),
})
