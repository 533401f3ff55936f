// Every bound both sides must agree on, with its unit in the name.

/** Token positions in a KV page at the node: DeepSeek's own cache unit. */
export const KV_PAGE_TOKENS = 64
/** UTF-8 bytes of rendered prompt in a prefix block at the edge: about one KV page of English. */
export const PREFIX_BLOCK_BYTES = 256
export const PREFIX_BLOCKS_MAX = 8192
export const REQUEST_BODY_BYTES_MAX = 8 * 1024 * 1024
/** Arrays and objects within each other in a body. */
export const BODY_DEPTH_MAX = 100
/** Of all objects of a body together: at some ten microseconds each, half a million held the Worker's one thread for seconds. */
export const BODY_MEMBERS_MAX = 250_000
/** Of a field of a body, token ids apart: messages, as at Anthropic, at some microseconds each. */
export const LIST_ITEMS_MAX = 100_000
/** Of a field of a body that is an object. */
export const MEMBERS_MAX = 4096
/** Token ids that a client may send as a prompt. */
export const PROMPT_TOKENS_MAX = 1_048_576
export const MAX_TOKENS_DEFAULT = 4096
export const MAX_TOKENS_MAX = 65_536
/** Answers to one prompt that a request may ask for. */
export const CHOICES_MAX = 16
/** Prompts of one text completion, and answers to all of them. */
export const PROMPTS_MAX = 128
/** Of runs; the highest goes first. */
export const PRIORITY_MIN = -2
export const PRIORITY_MAX = 2
/** A day, in milliseconds. */
export const DEADLINE_MS_MAX = 86_400_000
export const TOP_LOGPROBS_MAX = 20
export const LOGIT_BIAS_MAX = 1024
/** Calls of an account that only count tokens; one for each so many characters, since a megabyte takes a node seconds. */
export const TOKEN_COUNTS_PER_MINUTE = 600
export const TOKEN_COUNT_CHARS = 8192
export const IDEMPOTENCY_KEY_LENGTH_MAX = 255
/** Bytes of English in a token; only routes and limits of a minute are estimated with it, never money. */
export const BYTES_PER_TOKEN = 4
/** Of one credit, top-up or monthly budget. */
export const AMOUNT_MAX_NANO = 1e15
/** Rows of one answer of the admin API. */
export const ADMIN_ROWS_MAX = 1_000
/** An outcome under an `Idempotency-Key` is kept for so long, then forgotten together with its key. */
export const IDEMPOTENCY_KEPT_MS = 24 * 3_600_000
/** Bytes of one stored outcome, and of all of an account's, compressed. */
export const OUTCOME_BYTES_MAX = 4 * 1024 * 1024
export const OUTCOMES_BYTES_MAX = 32 * 1024 * 1024
/** Idempotency keys of an account that may be remembered at once. */
export const IDEMPOTENCY_KEYS_MAX = 50_000
/** A node is stale, and gets no requests, after this long without a heartbeat. */
export const NODE_STALE_MS = 15_000
export const HEARTBEAT_SECONDS = 5
/** No receipt for this long after the hold: it is released and nothing is charged. */
export const RECEIPT_WINDOW_MS = 15 * 60_000
/** Closed holds are kept this long to recognise a receipt that comes again. */
export const CLOSED_KEPT_MS = 7 * 24 * 3_600_000
/** A new price of a priced model begins so long after it was set: until then every account has read it. */
export const PRICE_NOTICE_MS = 60_000

/** A grammar's text; what a client's schema expands to is bounded with it. */
export const GRAMMAR_CHARS_MAX = 512 * 1024
