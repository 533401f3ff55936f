// The shape of a chat chunk, strict: a field too many is a fault like a field too few. Its type is checked against OpenAI's own.
import type OpenAI from 'openai'
import { expectTypeOf } from 'vitest'
import { z } from 'zod'

const count = z.int().nonnegative()

const usage = z
  .strictObject({
    prompt_tokens: count,
    completion_tokens: count,
    total_tokens: count,
    prompt_tokens_details: z.strictObject({ cached_tokens: count }),
    completion_tokens_details: z.strictObject({ reasoning_tokens: count }),
    prompt_cache_hit_tokens: count,
    prompt_cache_miss_tokens: count,
  })
  .refine((u) => u.prompt_tokens === u.prompt_cache_hit_tokens + u.prompt_cache_miss_tokens)
  .refine((u) => u.total_tokens === u.prompt_tokens + u.completion_tokens)

const toolCall = z.union([
  z.strictObject({
    index: count,
    id: z.string().min(1),
    type: z.literal('function'),
    function: z.strictObject({ name: z.string().min(1), arguments: z.literal('') }),
  }),
  z.strictObject({ index: count, function: z.strictObject({ arguments: z.string() }) }),
])

export const chatChunkSchema = z.strictObject({
  id: z.uuid(),
  object: z.literal('chat.completion.chunk'),
  created: count,
  model: z.string(),
  system_fingerprint: z.string(),
  choices: z.array(
    z.strictObject({
      index: count,
      delta: z.strictObject({
        role: z.literal('assistant').exactOptional(),
        content: z.string().nullable().exactOptional(),
        reasoning_content: z.string().nullable().exactOptional(),
        tool_calls: z.array(toolCall).exactOptional(),
      }),
      logprobs: z.null(),
      finish_reason: z.enum(['stop', 'length', 'tool_calls']).nullable(),
    }),
  ),
  usage: usage.nullable().exactOptional(),
})

expectTypeOf<z.infer<typeof chatChunkSchema>>().toExtend<OpenAI.ChatCompletionChunk>()
