// The wire contract between edge and node: every message that crosses that border, validated once on arrival.
// Both directions are signed the same way (signature.ts): a short-lived JWT that carries a hash of the body.
import { z } from 'zod'
import { templateSchema } from './chat/template_source.ts'
import {
  CHOICES_MAX,
  DEADLINE_MS_MAX,
  GRAMMAR_CHARS_MAX,
  LOGIT_BIAS_MAX,
  PRIORITY_MAX,
  PRIORITY_MIN,
  PROMPT_TOKENS_MAX,
  PROMPTS_MAX,
  TOP_LOGPROBS_MAX,
} from './limits.ts'

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER)
const id = z.string().min(1).max(64)

/** Paths of the internal calls. The first four are served by the node, the rest by the edge. */
export const PATHS = {
  livez: '/livez',
  run: '/run',
  tokenize: '/tokenize',
  abandon: '/abandon',
  receipts: '/internal/receipts',
  heartbeat: '/internal/heartbeat',
  register: '/internal/register',
} as const

export const FINISH_REASONS = ['stop', 'length', 'tool_calls', 'cancelled', 'error', 'node_lost'] as const
export type FinishReason = (typeof FINISH_REASONS)[number]

/** Settings beside temperature and top_p; an absent one changes nothing. Meanings: SequenceSpec in gpu-node/engine/engine.ts. */
const samplingShape = {
  /** Answers to each prompt; absent: 1. */
  n: count.min(1).max(CHOICES_MAX).optional(),
  topK: count.min(1).optional(),
  minP: z.number().min(0).max(1).optional(),
  frequencyPenalty: z.number().min(-2).max(2).optional(),
  presencePenalty: z.number().min(-2).max(2).optional(),
  repetitionPenalty: z.number().min(0.01).max(2).optional(),
  logitBias: z
    .record(z.string().regex(/^\d{1,7}$/), z.number().min(-100).max(100))
    .refine((bias) => Object.keys(bias).length <= LOGIT_BIAS_MAX)
    .optional(),
  minTokens: count.optional(),
  ignoreEos: z.boolean().optional(),
  topLogprobs: count.max(TOP_LOGPROBS_MAX).optional(),
}

/** What a run is beside a plain conversation; an absent one changes nothing. */
const extraShape = {
  /** The name that the client asked for, where `model` stands behind it. */
  shownModel: z.string().min(1).max(128).optional(),
  /** Written by the node: names what, beside prompt and seed, decides an answer. */
  fingerprint: z.string().max(64).optional(),
  /** The prompt is no conversation, so the answer is text as it comes. */
  raw: z.boolean().optional(),
  /** No tool may be called: what reads like a call is text. */
  noCalls: z.boolean().optional(),
  /** Strings of the prompt that must be tokens of their own, and the parameter that needs them. */
  needs: z.object({ tokens: z.array(z.string().min(1).max(64)).max(8), param: z.string().max(64) }).optional(),
  /** The customer's own user: cached prompts are shared within one of them only. */
  userId: z.string().max(512).optional(),
  /** Runs with the same hint prefer the same node. For the edge alone. */
  routingHint: z.string().max(1024).optional(),
}

const promptShape = {
  /** The rendered prompt, special strings included; written by schema/chat. */
  prompt: z.string(),
  /** The prompt as token ids, in place of text. */
  promptTokens: z.array(count).min(1).max(PROMPT_TOKENS_MAX).optional(),
  /** What of the prompt is put in front of each answer, with log-probabilities where they are asked for. */
  echoText: z.string().optional(),
  /** The same of a prompt of token ids: all of it. */
  echoTokens: z.boolean().optional(),
}

/** A client's request after parsing: what to compute and how to write it down. No dialect survives here but its name. */
export const runSchema = z.object({
  /** UUIDv7 minted at the edge: `x-request-id`, completion id, and primary key of hold, receipt, usage and ledger. */
  requestId: z.uuid(),
  /** Unix seconds; constant over the whole stream. */
  created: count,
  model: z.string().min(1).max(128),
  dialect: z.string().min(1).max(32),
  chatFormat: z.string().min(1).max(32),
  ...promptShape,
  /** Prompts behind the first one; see prompts.ts. */
  morePrompts: z
    .array(z.object(promptShape))
    .max(PROMPTS_MAX - 1)
    .optional(),
  /** True when the rendered prompt ends inside an open think tag. */
  thinking: z.boolean(),
  stream: z.boolean(),
  includeUsage: z.boolean(),
  /** JSON of request fields that the dialect's answer repeats. */
  echo: z.string().optional(),
  /** 0, of a text completion: the prompt alone is computed. */
  maxTokens: count,
  temperature: z.number().min(0).max(2),
  topP: z.number().min(0).max(1),
  /** Unsigned 64-bit integer in decimal. */
  seed: z.string().regex(/^\d{1,20}$/),
  stop: z.array(z.string().min(1).max(256)).max(16),
  /** What the answer's token text is held to: written by schema/chat, see AnswerGrammar there. */
  grammar: z
    .object({
      text: z.string().min(1).max(GRAMMAR_CHARS_MAX),
      marks: z.array(z.string().min(1).max(64)).max(8),
    })
    .optional(),
  /** Which run a node takes first; absent: 0. */
  priority: z.number().int().min(PRIORITY_MIN).max(PRIORITY_MAX).optional(),
  /** Milliseconds from the run's arrival at a node: then it ends, wherever it is. */
  deadlineMs: count.min(1).max(DEADLINE_MS_MAX).optional(),
  ...samplingShape,
  ...extraShape,
})
export type Run = z.infer<typeof runSchema>

/** Body of `POST /run` at a node. */
export const runRequestSchema = z.object({
  run: runSchema,
  accountId: id,
  keyId: id,
  /** 1 for the first node tried, then 2, ...; a node refuses the same (requestId, attempt) twice. */
  attempt: count.min(1),
  /** Opaque per-account salt of the node's page cache: no tenant can time another's prompts. */
  cacheSalt: z.string().min(1).max(128),
  /** Chained keys of the prompt's text blocks (prefix.ts), echoed in the receipt with the tokens each covered. */
  prefixKeys: z.array(z.string().length(24)).max(8192),
  /** Prompt tokens that the edge predicts in this node's cache; compared with the truth, never billed. */
  predictedTokens: count.optional(),
  /** Of several prompts: what the first took stands in the receipt by itself. */
  countsFirstPrompt: z.boolean().optional(),
})
export type RunRequest = z.infer<typeof runRequestSchema>

/** Head of the node's 200 answer to `POST /run`, as response headers: usage known before the first token. */
export const HEAD_HEADERS = {
  nodeId: 'x-sparrow-node',
  promptTokens: 'x-sparrow-prompt-tokens',
  cachedTokens: 'x-sparrow-cached-tokens',
} as const
export const responseHeadSchema = z.object({
  nodeId: id,
  promptTokens: z.coerce.number().int().nonnegative(),
  cachedTokens: z.coerce.number().int().nonnegative(),
})
export type ResponseHead = z.infer<typeof responseHeadSchema>

/** Body of `POST /tokenize` at a node: a rendered prompt, special strings included. */
export const tokenizeRequestSchema = z.object({
  model: z.string().min(1).max(128),
  text: z.string(),
  withIds: z.boolean(),
  /** As a run's; without it nothing that was encoded is kept. */
  cacheSalt: z.string().min(1).max(128).optional(),
})
export type TokenizeRequest = z.infer<typeof tokenizeRequestSchema>

export const tokenizeAnswerSchema = z.object({
  count,
  contextTokens: count.min(1),
  ids: z.array(count).optional(),
})
export type TokenizeAnswer = z.infer<typeof tokenizeAnswerSchema>

/** Body of `POST /abandon` at a node: the client left before the edge knew whether this attempt had begun. */
export const abandonRequestSchema = z.object({ requestId: id, attempt: count.min(1) })
export type AbandonRequest = z.infer<typeof abandonRequestSchema>

/** `willBill`: a receipt of the attempt comes. Else none ever does, whenever the run itself arrives. */
export const abandonAnswerSchema = z.object({ willBill: z.boolean() })

/** Body of a node's non-200 answer to `POST /run`; `code` is a row of errors.ts. */
export const nodeErrorSchema = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    param: z.string().optional(),
    retryAfterSeconds: z.number().optional(),
  }),
})
export type NodeError = z.infer<typeof nodeErrorSchema>

/** The node's signed statement of usage: the only source of what is billed. Times are Unix milliseconds. */
export const receiptSchema = z.object({
  version: z.literal(1),
  requestId: z.uuid(),
  attempt: count.min(1),
  accountId: id,
  keyId: id,
  nodeId: id,
  /** Journal generation (one per journal file) and position in it: (nodeId, epoch, seq) names this record for ever. */
  epoch: id,
  seq: count,
  model: z.string().min(1).max(128),
  /** Prompt tokens served from the page cache, a multiple of 64. */
  hitTokens: count,
  /** Prompt tokens really prefilled; `hit + miss` is the prompt, or what was computed of it before a cancel. */
  missTokens: count,
  /** Tokens really sampled, the one that ended the run included. */
  outputTokens: count,
  /** The part of `outputTokens` inside the think tags. */
  reasoningTokens: count,
  finish: z.enum(FINISH_REASONS),
  openedAt: count,
  firstTokenAt: count.nullable(),
  closedAt: count,
  /** Text blocks now resident at the node: [prefix key, prompt tokens up to the block's end], in order. */
  prefix: z.array(z.tuple([z.string().length(24), count])).max(8192),
  /** What the first of several prompts took of `hit` and `miss`, where the edge asked for it. */
  firstPrompt: z.strictObject({ hit: count, miss: count }).optional(),
})
export type Receipt = z.infer<typeof receiptSchema>

/** Ed25519 over `receiptBytes(receipt)` (receipt.ts), base64url. */
export const signedReceiptSchema = z.object({ receipt: receiptSchema, signature: z.string().length(86) })
export type SignedReceipt = z.infer<typeof signedReceiptSchema>

/** Body of `POST /internal/receipts`: a sealed segment of the journal, sent until the answer acknowledges it. */
export const segmentSchema = z.object({
  nodeId: id,
  /** Place in the node's chain of segments: 0, 1, ..., each with the SHA-256 (hex) of the one before it; empty for the first. */
  link: z.object({ chain: id, index: count, previous: z.string().regex(/^(?:[0-9a-f]{64})?$/) }),
  receipts: z.array(signedReceiptSchema).min(1).max(100),
})
export type Segment = z.infer<typeof segmentSchema>

/** Answer: each receipt is either settled (now or before) or refused for ever with a reason; the rest is sent again. */
export const segmentAckSchema = z.object({
  acknowledged: z.array(z.object({ requestId: z.uuid(), attempt: count })),
  refused: z.array(z.object({ requestId: z.uuid(), attempt: count, reason: z.string() })),
})
export type SegmentAck = z.infer<typeof segmentAckSchema>

/** Live load of a node, carried by registration and every heartbeat. */
export const loadSchema = z.object({
  running: count,
  waiting: count,
  kvPages: count,
  kvPagesUsed: count,
  /** Measured, for routing: prompt tokens a second of prefill. */
  prefillTokensPerSecond: z.number().nonnegative(),
  /** Prompt tokens since the start: all, found in the cache, predicted there by the edge, and predicted rightly. */
  promptTokens: count.default(0),
  cachedTokens: count.default(0),
  predictedTokens: count.default(0),
  predictedRightTokens: count.default(0),
})
export type Load = z.infer<typeof loadSchema>

/** Body of `POST /internal/register`, authorised by the join token (`authorization: Bearer <join token>`). */
export const registrationSchema = z.object({
  nodeId: id,
  /** Base address at which the edge reaches the node. */
  address: z.url(),
  /** Ed25519 public key, JWK `x` (base64url, 43 characters). */
  publicKey: z.string().length(43),
  model: z.string().min(1).max(128),
  chatFormat: z.string().min(1).max(32),
  /** What a format of a checkpoint's own renders with. */
  template: templateSchema.optional(),
  contextTokens: count.min(1),
  load: loadSchema,
})
export type Registration = z.infer<typeof registrationSchema>

/** Answer to a registration: the secret with which the edge signs its calls to this node, base64url. */
export const registeredSchema = z.object({
  dispatchSecret: z.string().min(32),
  heartbeatSeconds: z.number().positive(),
})
export type Registered = z.infer<typeof registeredSchema>

/** What a removed node is told, to its registration and to its heartbeats. */
export const removedSchema = z.object({ error: z.object({ code: z.literal('node_removed') }) })

/** Body of `POST /internal/heartbeat`; `draining` takes the node out of routing at once. */
export const heartbeatSchema = z.object({ nodeId: id, draining: z.boolean(), load: loadSchema })
export type Heartbeat = z.infer<typeof heartbeatSchema>

/** Answer to a heartbeat: the secret again, for the edge's may have been replaced. Older edges say nothing of it. */
export const beatenSchema = z.object({ ok: z.literal(true), dispatchSecret: z.string().min(32).optional() })
export type Beaten = z.infer<typeof beatenSchema>
