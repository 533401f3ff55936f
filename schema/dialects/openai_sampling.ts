// Sampling parameters that OpenAI's chat and text completions share, and what they mean for a run.
import { z } from 'zod'
import { CHOICES_MAX, DEADLINE_MS_MAX, LOGIT_BIAS_MAX, MAX_TOKENS_MAX, TOP_LOGPROBS_MAX } from '../limits.ts'
import { ENDS } from './read_shape.ts'

export const tokenLimit = z.int().min(1).max(MAX_TOKENS_MAX).nullish()
const stopString = z.string().min(1, ENDS).max(256, ENDS)

/** Beside OpenAI's parameters, top_k, min_p, repetition_penalty, min_tokens and ignore_eos as vLLM's users send them. */
export const sampling = {
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  /** -1 and 0: all. */
  top_k: z
    .int()
    .min(-1)
    .max(2 ** 31 - 1)
    .nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  repetition_penalty: z.number().min(0.01).max(2).nullish(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,7}$/, 'must be a token id'), z.number().min(-100).max(100))
    .refine((bias) => Object.keys(bias).length <= LOGIT_BIAS_MAX, `at most ${LOGIT_BIAS_MAX} tokens`)
    .meta({ maxProperties: LOGIT_BIAS_MAX })
    .nullish(),
  /** Any safe integer, as clients send it; negative ones are taken modulo 2^64. */
  seed: z.int().nullish(),
  stop: z.union([stopString, z.array(stopString).max(16)], 'must be a string or up to 16 strings').nullish(),
  min_tokens: z.int().min(0).max(MAX_TOKENS_MAX).nullish().describe('At most what the answer may have'),
  ignore_eos: z.boolean().nullish(),
  n: z.int().min(1).max(CHOICES_MAX).nullish(),
  /** How long the client waits, in milliseconds. */
  deadline_ms: z.int().min(1).max(DEADLINE_MS_MAX).nullish(),
  /** flex: behind all that is not. There is nothing to buy above the default. */
  service_tier: z.enum(['auto', 'default', 'flex'], 'must be "auto", "default" or "flex"').nullish(),
  best_of: z.literal(1, 'is not supported; ask for n choices and pick one of them').nullish(),
}

/** The chat form; text completions have a number instead. */
export const chatLogprobs = {
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(TOP_LOGPROBS_MAX).nullish().describe('Needs `logprobs: true`'),
}

type SamplingBody = z.infer<z.ZodObject<typeof sampling>>

const FLEX_PRIORITY = -1

/** `undefined` where the value changes nothing. */
export const unless = <T>(value: T | null | undefined, neutral: T): T | undefined =>
  value === null || value === neutral ? undefined : value

/** `seed`: for a client that names none. */
export const samplingOf = (body: SamplingBody, seed: string) => ({
  temperature: body.temperature ?? 1,
  topP: body.top_p ?? 1,
  seed: body.seed === undefined || body.seed === null ? seed : BigInt.asUintN(64, BigInt(body.seed)).toString(),
  stop: typeof body.stop === 'string' ? [body.stop] : (body.stop ?? []),
  n: unless(body.n, 1),
  topK: (body.top_k ?? 0) > 0 ? (body.top_k ?? undefined) : undefined,
  minP: unless(body.min_p, 0),
  frequencyPenalty: unless(body.frequency_penalty, 0),
  presencePenalty: unless(body.presence_penalty, 0),
  repetitionPenalty: unless(body.repetition_penalty, 1),
  logitBias: Object.keys(body.logit_bias ?? {}).length > 0 ? (body.logit_bias ?? undefined) : undefined,
  minTokens: unless(body.min_tokens, 0),
  ignoreEos: unless(body.ignore_eos, false),
  priority: body.service_tier === 'flex' ? FLEX_PRIORITY : undefined,
  deadlineMs: body.deadline_ms ?? undefined,
})
