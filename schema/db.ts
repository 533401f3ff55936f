// D1 tables (drizzle). Money is nano-dollars, times are Unix milliseconds, both integers.
// The account's Durable Object is the only writer of balance, usage and ledger rows; D1 is their durable, queryable copy.
import { sql } from 'drizzle-orm'
import { check, index, integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core'

export const accounts = sqliteTable(
  'accounts',
  {
    id: text('id').primaryKey(),
    name: text('name').notNull().unique(),
    /** Balance after the newest ledger row that reached D1. */
    balanceNano: integer('balance_nano').notNull().default(0),
    /** KeyLimits as JSON, for all keys together. */
    limits: text('limits').notNull().default('{}'),
    createdAt: integer('created_at').notNull(),
  },
  (t) => [check('accounts_balance_not_negative', sql`${t.balanceNano} >= 0`)],
)

export const apiKeys = sqliteTable(
  'api_keys',
  {
    id: text('id').primaryKey(),
    accountId: text('account_id')
      .notNull()
      .references(() => accounts.id),
    name: text('name').notNull(),
    /** HMAC of the whole key; the key itself is shown once and never stored. */
    keyHash: text('key_hash').notNull().unique(),
    /** The first key of a line of rotated ones; limits and spending are the family's. */
    family: text('family').notNull().default(''),
    /** KeyLimits as JSON. */
    limits: text('limits').notNull().default('{}'),
    lastFour: text('last_four').notNull(),
    createdAt: integer('created_at').notNull(),
    expiresAt: integer('expires_at'),
    revokedAt: integer('revoked_at'),
  },
  (t) => [index('api_keys_account').on(t.accountId)],
)

/** Nano-dollars a token from `effectiveFrom` on; a model without a row is not served. */
export const prices = sqliteTable(
  'prices',
  {
    model: text('model').notNull(),
    effectiveFrom: integer('effective_from').notNull(),
    hitNano: integer('hit_nano').notNull(),
    missNano: integer('miss_nano').notNull(),
    outputNano: integer('output_nano').notNull(),
  },
  (t) => [primaryKey({ columns: [t.model, t.effectiveFrom] })],
)

export const nodes = sqliteTable('nodes', {
  id: text('id').primaryKey(),
  address: text('address').notNull(),
  /** Ed25519 public key, JWK `x`. */
  publicKey: text('public_key').notNull(),
  model: text('model').notNull(),
  chatFormat: text('chat_format').notNull(),
  contextTokens: integer('context_tokens').notNull(),
  draining: integer('draining', { mode: 'boolean' }).notNull().default(false),
  running: integer('running').notNull().default(0),
  waiting: integer('waiting').notNull().default(0),
  prefillTokensPerSecond: integer('prefill_tokens_per_second').notNull().default(0),
  kvPages: integer('kv_pages').notNull().default(0),
  kvPagesUsed: integer('kv_pages_used').notNull().default(0),
  /** Prompt tokens since the node's start: all, found in its cache, predicted by the edge, and predicted rightly. */
  promptTokens: integer('prompt_tokens').notNull().default(0),
  cachedTokens: integer('cached_tokens').notNull().default(0),
  predictedTokens: integer('predicted_tokens').notNull().default(0),
  predictedRightTokens: integer('predicted_right_tokens').notNull().default(0),
  registeredAt: integer('registered_at').notNull(),
  heartbeatAt: integer('heartbeat_at').notNull(),
  /** By an operator, for good: it stays as one that drains, with the key that its receipts and its evidence are checked with. */
  removedAt: integer('removed_at'),
})

/** Chat templates that nodes brought; the name is a hash of the source, so a row never changes. */
export const chatTemplates = sqliteTable('chat_templates', {
  name: text('name').primaryKey(),
  /** TemplateSource as JSON. */
  source: text('source').notNull(),
  createdAt: integer('created_at').notNull(),
})

/** Which node holds which stretch of prompt text: a prediction, never a bill. */
export const prefixBlocks = sqliteTable(
  'prefix_blocks',
  {
    key: text('key').notNull(),
    nodeId: text('node_id').notNull(),
    /** Prompt tokens up to the end of this block. */
    tokens: integer('tokens').notNull(),
    /** When a receipt last named it; written anew at most once in `PREFIX_FRESH_MS`. */
    seenAt: integer('seen_at').notNull(),
    /** Opaque tag of the account: rows of one account are bounded. */
    scope: text('scope').notNull().default(''),
  },
  (t) => [primaryKey({ columns: [t.key, t.nodeId] }), index('prefix_blocks_scope').on(t.scope, t.seenAt)],
)

/** One row a settled request, with the prices it used and the receipt's signature as evidence. */
export const usage = sqliteTable(
  'usage',
  {
    requestId: text('request_id').primaryKey(),
    accountId: text('account_id').notNull(),
    keyId: text('key_id').notNull(),
    nodeId: text('node_id').notNull(),
    epoch: text('epoch').notNull(),
    seq: integer('seq').notNull(),
    attempt: integer('attempt').notNull(),
    model: text('model').notNull(),
    hitTokens: integer('hit_tokens').notNull(),
    missTokens: integer('miss_tokens').notNull(),
    outputTokens: integer('output_tokens').notNull(),
    reasoningTokens: integer('reasoning_tokens').notNull(),
    hitNano: integer('hit_nano').notNull(),
    missNano: integer('miss_nano').notNull(),
    outputNano: integer('output_nano').notNull(),
    /** Start of the price in force. */
    priceFrom: integer('price_from').notNull().default(0),
    holdNano: integer('hold_nano').notNull().default(0),
    admittedAt: integer('admitted_at').notNull().default(0),
    /** Failed attempts before this one, JSON: [{ attempt, nodeId, code }]. */
    attempts: text('attempts').notNull().default('[]'),
    /** What is not charged although it was used, JSON: [{ reason, nano }]; the sum stands in `creditNano`. */
    credits: text('credits').notNull().default('[]'),
    creditNano: integer('credit_nano').notNull().default(0),
    /** The request that this one repeated, where its client said so. */
    retryOf: text('retry_of'),
    /** usage x price - credit, exactly. */
    chargedNano: integer('charged_nano').notNull(),
    finish: text('finish').notNull(),
    openedAt: integer('opened_at').notNull(),
    firstTokenAt: integer('first_token_at'),
    closedAt: integer('closed_at').notNull(),
    settledAt: integer('settled_at').notNull(),
    signature: text('signature').notNull(),
  },
  (t) => [index('usage_account_time').on(t.accountId, t.settledAt), index('usage_key_time').on(t.keyId, t.settledAt)],
)

/**
 * Sums of usage rows by key, model and UTC hour, kept for ever. Triggers (migration 0005) add each usage row once, and each refund to
 * the hour of its charge.
 */
export const usageHours = sqliteTable(
  'usage_hours',
  {
    accountId: text('account_id').notNull(),
    keyId: text('key_id').notNull(),
    model: text('model').notNull(),
    /** Start of the hour. */
    hour: integer('hour').notNull(),
    requests: integer('requests').notNull(),
    hitTokens: integer('hit_tokens').notNull(),
    missTokens: integer('miss_tokens').notNull(),
    outputTokens: integer('output_tokens').notNull(),
    creditNano: integer('credit_nano').notNull(),
    chargedNano: integer('charged_nano').notNull(),
    /** Tokens x the price that each row used; what output cost is the rest of charge and credit. */
    hitCostNano: integer('hit_cost_nano'),
    missCostNano: integer('miss_cost_nano'),
    /** Cached tokens x what they were cheaper than uncached ones. */
    savedNano: integer('saved_nano'),
    /** Given back after the charge. These four are null together: of hours whose rows were swept before the four were kept. */
    refundNano: integer('refund_nano'),
  },
  (t) => [primaryKey({ columns: [t.accountId, t.keyId, t.model, t.hour] })],
)

/** How far a sweep has come: rows from before `before` may be gone. */
export const sweeps = sqliteTable('sweeps', {
  name: text('name').primaryKey(),
  before: integer('before').notNull(),
})

/** The last sealed segment of each chain of receipts (edge/evidence.ts), so that a missing tail is seen. */
export const evidenceChains = sqliteTable(
  'evidence_chains',
  {
    nodeId: text('node_id').notNull(),
    /** A node that lost its place starts another chain. */
    chain: text('chain').notNull(),
    segments: integer('segments').notNull(),
    /** SHA-256 of the last segment. */
    head: text('head').notNull(),
    updatedAt: integer('updated_at').notNull(),
  },
  (t) => [primaryKey({ columns: [t.nodeId, t.chain] })],
)

/** Append-only; `sum(amount_nano)` of an account is its balance. `id` is the request id or the top-up's idempotency key. */
export const ledger = sqliteTable(
  'ledger',
  {
    accountId: text('account_id').notNull(),
    id: text('id').notNull(),
    kind: text('kind', { enum: ['top_up', 'charge', 'refund'] }).notNull(),
    amountNano: integer('amount_nano').notNull(),
    /** Position in the account's own ledger, 1, 2, ...: a gap means a lost row. */
    seq: integer('seq').notNull(),
    balanceAfterNano: integer('balance_after_nano').notNull(),
    createdAt: integer('created_at').notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.accountId, t.id] }),
    index('ledger_account_seq').on(t.accountId, t.seq),
    /** Whose top-up an idempotency key was; charges, of which there are many, are not in it. */
    index('ledger_top_ups').on(t.id).where(sql`kind = 'top_up'`),
  ],
)

/** Who changed what through the admin API; triggers refuse UPDATE and DELETE (migration 0001). */
export const auditLog = sqliteTable(
  'audit_log',
  {
    seq: integer('seq').primaryKey({ autoIncrement: true }),
    at: integer('at').notNull(),
    /** The call: its `asked` row is written before anything changes, its `done` or `refused` row after. */
    callId: text('call_id').notNull(),
    phase: text('phase', { enum: ['asked', 'done', 'refused'] }).notNull(),
    /** Method and path. */
    action: text('action').notNull(),
    ip: text('ip').notNull(),
    /** Body of the call, then outcome, as JSON; never a key. */
    detail: text('detail').notNull(),
  },
  (t) => [index('audit_log_at').on(t.at)],
)
