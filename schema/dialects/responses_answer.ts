// What an answer in the dialect of OpenAI's Responses looks like: the published document and the contract tests are made from these
// shapes. Nothing here is validated at run time.
import { z } from 'zod'
import { openAiErrorSchema } from './openai_chat_answer.ts'

const count = z.int().nonnegative()
const status = z.enum(['in_progress', 'completed', 'incomplete'])

const token = { token: z.string(), bytes: z.array(z.int()), logprob: z.number() }
const logprobs = z.array(z.strictObject({ ...token, top_logprobs: z.array(z.strictObject(token)) }))

const outputText = z.strictObject({
  type: z.literal('output_text'),
  text: z.string(),
  annotations: z.array(z.never()),
  logprobs,
})
const reasoningText = z.strictObject({ type: z.literal('reasoning_text'), text: z.string() })
const summaryText = z.strictObject({ type: z.literal('summary_text'), text: z.string() })

const item = z.discriminatedUnion('type', [
  z.strictObject({
    id: z.string(),
    type: z.literal('reasoning'),
    summary: z.array(summaryText),
    content: z.array(reasoningText),
    encrypted_content: z.null(),
    status,
  }),
  z.strictObject({
    id: z.string(),
    type: z.literal('message'),
    status,
    role: z.literal('assistant'),
    content: z.array(outputText),
  }),
  z.strictObject({
    id: z.string(),
    type: z.literal('function_call'),
    status,
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
  }),
])

const tool = z.strictObject({
  type: z.literal('function'),
  name: z.string(),
  description: z.string().nullable(),
  parameters: z.record(z.string(), z.unknown()).nullable(),
  strict: z.boolean(),
})

const format = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text') }),
  z.strictObject({ type: z.literal('json_object') }),
  z.strictObject({
    type: z.literal('json_schema'),
    name: z.string(),
    description: z.string().exactOptional(),
    schema: z.record(z.string(), z.unknown()),
    strict: z.boolean().nullable().exactOptional(),
  }),
])

export const responseSchema = z.strictObject({
  id: z.string().regex(/^resp_/),
  object: z.literal('response'),
  created_at: count,
  status,
  background: z.literal(false),
  error: z.null(),
  incomplete_details: z.strictObject({ reason: z.literal('max_output_tokens') }).nullable(),
  model: z.string(),
  output: z.array(item),
  instructions: z.string().nullable(),
  max_output_tokens: count.nullable(),
  max_tool_calls: count.nullable(),
  metadata: z.record(z.string(), z.string()),
  parallel_tool_calls: z.boolean(),
  previous_response_id: z.null(),
  prompt_cache_key: z.string().nullable(),
  reasoning: z.strictObject({
    effort: z.enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max']).nullable(),
    summary: z.enum(['auto', 'detailed']).nullable(),
  }),
  safety_identifier: z.string().nullable(),
  service_tier: z.literal('default'),
  store: z.literal(false).describe('Nothing is stored.'),
  temperature: z.number(),
  text: z.strictObject({ format, verbosity: z.literal('medium') }),
  tool_choice: z.union([
    z.enum(['none', 'auto', 'required']),
    z.strictObject({ type: z.literal('function'), name: z.string() }),
  ]),
  tools: z.array(tool),
  top_logprobs: count,
  top_p: z.number(),
  truncation: z.literal('disabled'),
  user: z.string().exactOptional(),
  usage: z
    .strictObject({
      input_tokens: count,
      input_tokens_details: z.strictObject({ cached_tokens: count, cache_write_tokens: z.literal(0) }),
      output_tokens: count,
      output_tokens_details: z.strictObject({ reasoning_tokens: count }),
      total_tokens: count,
    })
    .exactOptional(),
})

const event = <T extends string, S extends z.core.$ZodLooseShape>(type: T, shape: S) =>
  z.strictObject({ type: z.literal(`response.${type}`), sequence_number: count, ...shape })

const inItem = { item_id: z.string(), output_index: count }
const inContent = { ...inItem, content_index: count }
const inSummary = { ...inItem, summary_index: count }
const part = z.discriminatedUnion('type', [outputText, reasoningText])

export const responseEventSchema = z.discriminatedUnion('type', [
  event('created', { response: responseSchema }),
  event('in_progress', { response: responseSchema }),
  event('output_item.added', { output_index: count, item }),
  event('content_part.added', { ...inContent, part }),
  event('output_text.delta', { ...inContent, delta: z.string(), logprobs }),
  event('output_text.done', { ...inContent, text: z.string(), logprobs }),
  event('reasoning_text.delta', { ...inContent, delta: z.string() }),
  event('reasoning_text.done', { ...inContent, text: z.string() }),
  event('reasoning_summary_part.added', { ...inSummary, part: summaryText }),
  event('reasoning_summary_text.delta', { ...inSummary, delta: z.string() }),
  event('reasoning_summary_text.done', { ...inSummary, text: z.string() }),
  event('reasoning_summary_part.done', { ...inSummary, part: summaryText }),
  event('function_call_arguments.delta', { ...inItem, delta: z.string() }),
  event('function_call_arguments.done', { ...inItem, arguments: z.string(), name: z.string() }),
  event('content_part.done', { ...inContent, part }),
  event('output_item.done', { output_index: count, item }),
  z.strictObject({ type: z.literal('keepalive'), sequence_number: count }).describe('Of a stream that is quiet.'),
  event('completed', { response: responseSchema }),
  event('incomplete', { response: responseSchema }),
  z.strictObject({
    ...{ type: z.literal('error'), code: z.string(), message: z.string(), param: z.string().nullable() },
    sequence_number: count,
    error: openAiErrorSchema.shape.error,
  }),
])

export const responsesCountAnswerSchema = z.strictObject({
  object: z.literal('response.input_tokens'),
  input_tokens: count,
})
