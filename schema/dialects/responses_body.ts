// The body of POST /v1/responses as OpenAI's clients send it, for stateless use: nothing is stored, so what would need a store, and
// tools that would run on OpenAI's side, are refused by name.
import { z } from 'zod'
import { LIST_ITEMS_MAX, MAX_TOKENS_MAX } from '../limits.ts'
import { calledName, callId } from './openai_chat_body.ts'
import { ENDS } from './read_shape.ts'

const NAME = /^[a-zA-Z0-9_-]{1,64}$/
const STATELESS = 'is not supported: responses are not stored. Send the whole conversation as input'
const only = <T extends string | number | boolean>(value: T, message: string) => z.literal(value, message).nullish()
const absent = (message: string) => z.null(message).optional()

const textPart = z.discriminatedUnion(
  'type',
  [
    z.strictObject({ type: z.literal('input_text'), text: z.string() }),
    z.strictObject({
      type: z.literal('output_text'),
      text: z.string(),
      annotations: z.array(z.unknown()).nullish(),
      logprobs: z.array(z.unknown()).nullish(),
      /** OpenAI's client adds what it made of the text, and of a call's arguments, to what it sends back. */
      parsed: z.unknown().optional(),
    }),
  ],
  'only input_text and output_text are supported',
)
const content = z.union([z.string(), z.array(textPart).min(1, ENDS)], 'must be a string or one or more parts of text')

/** What an item of an earlier answer carries besides its content. */
const ofAnswers = { id: z.string().nullish(), status: z.string().nullish() }

const message = z.strictObject({
  type: z.literal('message').nullish(),
  role: z.enum(['user', 'assistant', 'system', 'developer']),
  content,
  phase: z.enum(['commentary', 'final_answer']).nullish(),
  ...ofAnswers,
})
const summaryPart = z.strictObject({ type: z.literal('summary_text'), text: z.string() })
const reasoningPart = z.strictObject({ type: z.literal('reasoning_text'), text: z.string() })

const item = z.discriminatedUnion(
  'type',
  [
    message,
    z.strictObject({
      type: z.literal('function_call'),
      call_id: callId,
      name: calledName,
      arguments: z.string(),
      parsed_arguments: z.unknown().optional(),
      ...ofAnswers,
    }),
    z.strictObject({
      type: z.literal('function_call_output'),
      call_id: callId,
      output: content,
      ...ofAnswers,
    }),
    z.strictObject({
      type: z.literal('reasoning'),
      summary: z.array(summaryPart).nullish(),
      content: z.array(reasoningPart).nullish(),
      encrypted_content: z.null('holds nothing of ours; send the item’s content').optional(),
      ...ofAnswers,
    }),
  ],
  'must be message, function_call, function_call_output or reasoning',
)

const tool = z.strictObject({
  type: z.literal('function', 'only function tools are supported'),
  name: z.string().regex(NAME, ENDS),
  description: z.string().nullish(),
  parameters: z.record(z.string(), z.unknown()).nullish(),
  /** OpenAI tries to be strict where nothing is said; here it is asked for. */
  strict: z.boolean().nullish(),
})

const format = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text') }),
  z.strictObject({ type: z.literal('json_object') }),
  z.strictObject({
    type: z.literal('json_schema'),
    name: z.string().regex(NAME),
    description: z.string().nullish(),
    schema: z.record(z.string(), z.unknown()),
    strict: z.boolean().nullish(),
  }),
])

const reasoning = z.strictObject({
  effort: z.enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max']).nullish(),
  /** The reasoning itself is its summary. */
  summary: z.enum(['auto', 'detailed'], 'must be auto or detailed: no shorter summary is made').nullish(),
  generate_summary: absent('is not supported: use summary'),
  context: only('auto', 'is not supported: earlier turns are sent without their reasoning'),
  mode: only('standard', 'is not supported'),
})

/** What decides the prompt. */
const asked = {
  model: z.string().min(1).max(128),
  input: z.union([z.string(), z.array(item).min(1).max(LIST_ITEMS_MAX)], 'must be a string or a list of items'),
  instructions: z.string().nullish(),
  tools: z.array(tool).max(128).nullish(),
  tool_choice: z
    .union(
      [
        z.enum(['none', 'auto', 'required']),
        z.strictObject({ type: z.literal('function'), name: z.string().regex(NAME) }),
      ],
      'must be "none", "auto", "required" or name a function',
    )
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  text: z.strictObject({ format: format.nullish(), verbosity: only('medium', 'is not supported') }).nullish(),
  reasoning: reasoning.nullish(),
  previous_response_id: absent(STATELESS),
  conversation: absent(STATELESS),
  truncation: only('disabled', 'is not supported: a prompt that is too long is refused'),
}

export const responsesCountSchema = z.strictObject(asked)

export const responsesBodySchema = z.strictObject({
  ...asked,
  max_output_tokens: z.int().min(1).max(MAX_TOKENS_MAX).nullish(),
  /** Counts calls of tools on OpenAI's side, of which there are none. */
  max_tool_calls: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  include: z
    .array(z.enum(['reasoning.encrypted_content', 'message.output_text.logprobs'], 'is not supported'))
    .nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.strictObject({ include_obfuscation: only(false, 'is not supported') }).nullish(),
  /** Whatever is asked, nothing is stored, and the answer says so. */
  store: z.boolean().nullish(),
  background: only(false, 'is not supported'),
  prompt: absent('is not supported'),
  context_management: absent('is not supported'),
  moderation: absent('is not supported'),
  metadata: z.record(z.string().max(64), z.string().max(512)).nullish(),
  service_tier: z.enum(['auto', 'default'], 'must be auto or default').nullish(),
  prompt_cache_key: z.string().max(512).nullish(),
  prompt_cache_retention: z.enum(['in_memory', '24h']).nullish(),
  prompt_cache_options: absent('is not supported: caching is automatic'),
  safety_identifier: z.string().max(512).nullish(),
  user: z.string().max(512).nullish(),
})

export type ResponsesBody = z.infer<typeof responsesBodySchema>
export type ResponsesItem = Exclude<ResponsesBody['input'], string>[number]
