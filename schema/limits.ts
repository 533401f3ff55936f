// Every bound both sides must agree on, with its unit in the name.

/** Token positions in a KV page at the node: DeepSeek's own cache unit. */
export const KV_PAGE_TOKENS = 64
/** UTF-8 bytes of rendered prompt in a prefix block at the edge: about one KV page of English. */
export const PREFIX_BLOCK_BYTES = 256
export const PREFIX_BLOCKS_MAX = 8192
export const REQUEST_BODY_BYTES_MAX = 4 * 1024 * 1024
export const MAX_TOKENS_DEFAULT = 4096
export const MAX_TOKENS_MAX = 65_536
/** Answers to one prompt that a request may ask for. */
export const CHOICES_MAX = 16
export const TOP_LOGPROBS_MAX = 20
export const LOGIT_BIAS_MAX = 1024
/** A node is stale, and gets no requests, after this long without a heartbeat. */
export const NODE_STALE_MS = 15_000
export const HEARTBEAT_SECONDS = 5
/** No receipt for this long after the hold: it is released and nothing is charged. */
export const RECEIPT_WINDOW_MS = 15 * 60_000

/** A grammar's text; what a client's schema expands to is bounded with it. */
export const GRAMMAR_CHARS_MAX = 512 * 1024
