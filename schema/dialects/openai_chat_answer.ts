// What an answer in OpenAI's chat dialect looks like: the published document and the contract tests are made from these shapes.
// Nothing here is validated at run time. Strict: a field too many is a fault like a field too few.
import { z } from 'zod'

const count = z.int().nonnegative()

export const openAiUsageSchema = z
  .strictObject({
    prompt_tokens: count,
    completion_tokens: count,
    total_tokens: count,
    prompt_tokens_details: z.strictObject({ cached_tokens: count }),
    completion_tokens_details: z.strictObject({ reasoning_tokens: count }),
    prompt_cache_hit_tokens: count.describe('Billed at the price of cached tokens; a multiple of 64.'),
    prompt_cache_miss_tokens: count,
  })
  .refine((u) => u.prompt_tokens === u.prompt_cache_hit_tokens + u.prompt_cache_miss_tokens)
  .refine((u) => u.prompt_cache_hit_tokens === u.prompt_tokens_details.cached_tokens)
  .refine((u) => u.total_tokens === u.prompt_tokens + u.completion_tokens)

const token = { token: z.string(), logprob: z.number(), bytes: z.array(z.int()) }
const tokens = z.array(z.strictObject({ ...token, top_logprobs: z.array(z.strictObject(token)) }))
const logprobs = z
  .strictObject({ content: tokens.nullable(), refusal: z.null(), reasoning_content: tokens.exactOptional() })
  .nullable()

export const openAiHeadShape = { id: z.uuid(), created: count, model: z.string(), system_fingerprint: z.string() }
const finish = z.enum(['stop', 'length', 'tool_calls', 'insufficient_system_resource'])
const called = z.strictObject({
  name: z.string().min(1),
  arguments: z.string().describe('JSON, which breaks off where finish_reason is length'),
})

const toolCallDelta = z.union([
  z.strictObject({
    index: count,
    id: z.string().min(1),
    type: z.literal('function'),
    function: z.strictObject({ name: z.string().min(1), arguments: z.literal('') }),
  }),
  z.strictObject({ index: count, function: z.strictObject({ arguments: z.string() }) }),
])

export const chatCompletionSchema = z.strictObject({
  ...openAiHeadShape,
  object: z.literal('chat.completion'),
  choices: z.array(
    z.strictObject({
      index: count,
      message: z.strictObject({
        role: z.literal('assistant'),
        content: z.string().nullable(),
        refusal: z.null(),
        reasoning_content: z.string().exactOptional(),
        tool_calls: z
          .array(z.strictObject({ id: z.string().min(1), type: z.literal('function'), function: called }))
          .exactOptional(),
      }),
      logprobs,
      finish_reason: finish,
    }),
  ),
  usage: openAiUsageSchema,
})

export const chatChunkSchema = z.strictObject({
  ...openAiHeadShape,
  object: z.literal('chat.completion.chunk'),
  choices: z.array(
    z.strictObject({
      index: count,
      delta: z.strictObject({
        role: z.literal('assistant').exactOptional(),
        content: z.string().nullable().exactOptional(),
        reasoning_content: z.string().nullable().exactOptional(),
        tool_calls: z.array(toolCallDelta).exactOptional(),
      }),
      logprobs,
      finish_reason: finish.nullable(),
    }),
  ),
  usage: openAiUsageSchema.nullable().exactOptional(),
})

export const openAiErrorSchema = z.strictObject({
  error: z.strictObject({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string(),
  }),
})
