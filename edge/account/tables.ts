// The account object's own SQLite: its schema, step by step. A step never changes once it is released; new ones are appended.

const STEPS: readonly string[] = [
  `CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0), seq INTEGER NOT NULL);
   CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, expires_at INTEGER, revoked INTEGER NOT NULL);
   CREATE TABLE IF NOT EXISTS holds (request_id TEXT PRIMARY KEY, key_id TEXT NOT NULL, model TEXT NOT NULL, amount INTEGER NOT NULL,
     attempt INTEGER NOT NULL, price TEXT NOT NULL, state TEXT NOT NULL, created_at INTEGER NOT NULL, closed_at INTEGER);
   CREATE INDEX IF NOT EXISTS holds_state ON holds (state, created_at);
   CREATE TABLE IF NOT EXISTS topups (id TEXT PRIMARY KEY, amount INTEGER NOT NULL);
   CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, item TEXT NOT NULL);`,
  // Limits, months, idempotency, and holds that remember what they were made for.
  `ALTER TABLE account ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
   ALTER TABLE keys ADD COLUMN family TEXT NOT NULL DEFAULT '';
   UPDATE keys SET family = id;
   ALTER TABLE keys ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
   ALTER TABLE holds ADD COLUMN family TEXT NOT NULL DEFAULT '';
   UPDATE holds SET family = key_id;
   ALTER TABLE holds ADD COLUMN prompt_bytes INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE holds ADD COLUMN max_tokens INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE holds ADD COLUMN attempts TEXT NOT NULL DEFAULT '[]';
   ALTER TABLE holds ADD COLUMN node_id TEXT;
   ALTER TABLE holds ADD COLUMN fingerprint TEXT;
   ALTER TABLE holds ADD COLUMN retry_of TEXT;
   ALTER TABLE holds ADD COLUMN charged INTEGER NOT NULL DEFAULT 0;
   CREATE INDEX holds_retry ON holds (retry_of) WHERE retry_of IS NOT NULL;
   CREATE TABLE spend (family TEXT NOT NULL, month TEXT NOT NULL, nano INTEGER NOT NULL, PRIMARY KEY (family, month));
   CREATE TABLE outcomes (family TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, request_id TEXT NOT NULL UNIQUE,
     state TEXT NOT NULL, content_type TEXT, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY (family, key));
   CREATE INDEX outcomes_time ON outcomes (created_at);
   CREATE TABLE outcome_parts (request_id TEXT NOT NULL, n INTEGER NOT NULL, part BLOB NOT NULL, PRIMARY KEY (request_id, n));`,
  // Affinity credit, and where prompts part.
  `ALTER TABLE holds ADD COLUMN overlap_tokens INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE holds ADD COLUMN credits TEXT NOT NULL DEFAULT '[]';
   CREATE TABLE trails (n INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT NOT NULL, family TEXT NOT NULL, at INTEGER NOT NULL,
     characters INTEGER NOT NULL, turns TEXT NOT NULL, tags BLOB NOT NULL);`,
  // Every alarm forgets what closed long ago.
  'CREATE INDEX holds_closed ON holds (closed_at) WHERE closed_at IS NOT NULL;',
  // An SDK's retry looks for the first request with its body. Trails have two bytes a step from here on.
  `CREATE INDEX holds_body ON holds (family, fingerprint, created_at) WHERE fingerprint IS NOT NULL;
   DELETE FROM trails;`,
  // Holds of the first version do not know their prompt's bytes, of which their amount is never less: their receipts must not be taken for lies.
  "UPDATE holds SET prompt_bytes = amount WHERE prompt_bytes = 0 AND state IN ('open', 'released')",
  // Nor since when their price was in force: 0, as in their usage rows, or the bill from the evidence would differ from the books.
  "UPDATE holds SET price = json_insert(price, '$.from', 0) WHERE price ->> '$.from' IS NULL",
  // A prompt that was scored takes nothing from a cache.
  'ALTER TABLE trails ADD COLUMN scored INTEGER NOT NULL DEFAULT 0',
  // Nor do holds of the first version know how many tokens were asked for; 0 is a number, which nobody could ask for until now.
  "UPDATE holds SET max_tokens = amount WHERE max_tokens = 0 AND state IN ('open', 'released')",
  // While a secret is replaced: what isolates that do not know the new one yet call an idempotency key.
  `ALTER TABLE outcomes ADD COLUMN former_key TEXT;
   CREATE INDEX outcomes_former ON outcomes (family, former_key) WHERE former_key IS NOT NULL;`,
]

/** Brings an object of any age up to date; each step runs once, whole or not at all. */
export const migrate = (storage: DurableObjectStorage): void => {
  const { sql } = storage
  sql.exec('CREATE TABLE IF NOT EXISTS schema_steps (step INTEGER PRIMARY KEY)')
  const done = sql.exec<{ n: number }>('SELECT count(*) AS n FROM schema_steps').one().n
  for (const [index, step] of STEPS.entries()) {
    if (index < done) continue
    storage.transactionSync(() => {
      sql.exec(step)
      sql.exec('INSERT INTO schema_steps (step) VALUES (?)', index)
    })
  }
}

export type Row = Record<string, SqlStorageValue>

/** The first row of a query, if any. */
export const first = <T extends Row>(sql: SqlStorage, query: string, ...values: SqlStorageValue[]): T | undefined =>
  sql.exec<T>(query, ...values).toArray()[0]
