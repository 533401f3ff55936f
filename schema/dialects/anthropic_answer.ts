// What an answer in Anthropic's dialect looks like: the published document and the contract tests are made from these shapes. Nothing
// here is validated at run time; test/unit/anthropic.test.ts holds the formatter to them, and them to Anthropic's own types.
import { z } from 'zod'

const count = z.int().nonnegative()

const tokens = {
  input_tokens: count.describe('Prompt tokens that were computed; cached ones are counted apart.'),
  cache_creation_input_tokens: z.literal(0).describe('Caching is automatic and free.'),
  cache_read_input_tokens: count.describe('Prompt tokens served from the cache, a multiple of 64.'),
  output_tokens: count,
  output_tokens_details: z.strictObject({ thinking_tokens: count }),
  server_tool_use: z.null(),
}

const messageUsage = z.strictObject({
  ...tokens,
  cache_creation: z.strictObject({ ephemeral_5m_input_tokens: z.literal(0), ephemeral_1h_input_tokens: z.literal(0) }),
  service_tier: z.literal('standard'),
  inference_geo: z.null(),
  speed: z.literal('standard'),
})

const stops = {
  stop_reason: z.enum(['end_turn', 'max_tokens', 'stop_sequence', 'tool_use']).nullable(),
  stop_sequence: z.string().nullable(),
  stop_details: z.null(),
  container: z.null(),
}

const block = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text'), text: z.string(), citations: z.null() }),
  z.strictObject({ type: z.literal('thinking'), thinking: z.string(), signature: z.string() }),
  z.strictObject({
    type: z.literal('tool_use'),
    id: z.string(),
    name: z.string(),
    caller: z.strictObject({ type: z.literal('direct') }),
    input: z.record(z.string(), z.unknown()),
  }),
])

export const anthropicMessageSchema = z.strictObject({
  id: z.string().regex(/^msg_/),
  type: z.literal('message'),
  role: z.literal('assistant'),
  model: z.string(),
  content: z.array(block),
  ...stops,
  diagnostics: z.null(),
  usage: messageUsage,
})

export const anthropicErrorSchema = z.strictObject({
  type: z.literal('error'),
  error: z.strictObject({
    type: z.string(),
    message: z.string(),
    details: z.strictObject({ error_code: z.string(), unsupported: z.array(z.string()) }).exactOptional(),
  }),
})

export const anthropicEventSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('message_start'), message: anthropicMessageSchema }),
  z.strictObject({ type: z.literal('content_block_start'), index: count, content_block: block }),
  z.strictObject({
    type: z.literal('content_block_delta'),
    index: count,
    delta: z.discriminatedUnion('type', [
      z.strictObject({ type: z.literal('text_delta'), text: z.string() }),
      z.strictObject({ type: z.literal('thinking_delta'), thinking: z.string() }),
      z.strictObject({ type: z.literal('signature_delta'), signature: z.string() }),
      z.strictObject({ type: z.literal('input_json_delta'), partial_json: z.string() }),
    ]),
  }),
  z.strictObject({ type: z.literal('content_block_stop'), index: count }),
  z.strictObject({ type: z.literal('message_delta'), delta: z.strictObject(stops), usage: z.strictObject(tokens) }),
  z.strictObject({ type: z.literal('message_stop') }),
  z.strictObject({ type: z.literal('ping') }),
  anthropicErrorSchema,
])

export const anthropicCountAnswerSchema = z.strictObject({ input_tokens: count })
