// The body of POST /v1/messages as Anthropic's clients send it. What Sparrow cannot honour is no part of the shape, so that it is
// refused by name; `cache_control` is taken, since every prompt is cached anyway.
import { z } from 'zod'
import { LIST_ITEMS_MAX, MAX_TOKENS_MAX } from '../limits.ts'
import { calledName, callId } from './openai_chat_body.ts'
import { ENDS } from './read_shape.ts'

const cached = { cache_control: z.looseObject({ type: z.literal('ephemeral') }).nullish() }
/** Answers carry these; a client that sends an answer back sends them along. */
const ofAnswers = {
  citations: z.union([z.null(), z.array(z.unknown()).max(0, { message: 'are not supported', ...ENDS })]).optional(),
}
const direct = { caller: z.object({ type: z.literal('direct') }).nullish(), toolset_name: z.null().optional() }

const textBlock = z.strictObject({ type: z.literal('text'), text: z.string(), ...cached, ...ofAnswers })

const text = (message: string) =>
  z.union(
    [z.string(), z.array(z.discriminatedUnion('type', [textBlock], message))],
    'must be a string or blocks of text',
  )

const userBlock = z.discriminatedUnion(
  'type',
  [
    textBlock,
    z.strictObject({
      type: z.literal('tool_result'),
      tool_use_id: callId,
      content: text('only text is supported in a tool_result').nullish(),
      is_error: z.boolean().nullish(),
      toolset_name: z.null().optional(),
      ...cached,
    }),
  ],
  'only text and tool_result blocks are supported here',
)

const assistantBlock = z.discriminatedUnion(
  'type',
  [
    textBlock,
    z.strictObject({ type: z.literal('thinking'), thinking: z.string(), signature: z.string().nullish() }),
    z.strictObject({
      type: z.literal('tool_use'),
      id: callId,
      name: calledName,
      input: z.record(z.string(), z.unknown()),
      ...direct,
      ...cached,
    }),
  ],
  'only text, thinking and tool_use blocks are supported here',
)

const message = z.discriminatedUnion(
  'role',
  [
    z.strictObject({
      role: z.literal('user'),
      content: z.union([z.string(), z.array(userBlock).min(1, ENDS)], 'must be a string or one or more blocks'),
    }),
    z.strictObject({ role: z.literal('assistant'), content: z.union([z.string(), z.array(assistantBlock)]) }),
  ],
  'must be user or assistant',
)

const tool = z.strictObject({
  type: z.literal('custom', 'server tools are not supported; declare a tool with an input_schema').nullish(),
  name: z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, { message: 'must have 1 to 64 of a-z, A-Z, 0-9, _ and -', ...ENDS }),
  description: z.string().nullish(),
  input_schema: z.looseObject({ type: z.literal('object') }),
  strict: z.boolean().nullish(),
  eager_input_streaming: z.boolean().nullish(),
  // As it is anyway: shown to the model at once, and called by it alone.
  defer_loading: z.literal(false, 'is not supported').nullish(),
  allowed_callers: z.array(z.literal('direct', 'is not supported')).nullish(),
  ...cached,
})

const parallel = { disable_parallel_tool_use: z.boolean().nullish() }
const toolChoice = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('auto'), ...parallel }),
  z.strictObject({ type: z.literal('any'), ...parallel }),
  z.strictObject({ type: z.literal('tool'), name: z.string().min(1), ...parallel }),
  z.strictObject({ type: z.literal('none') }),
])

const display = { display: z.literal('summarized', 'thinking is always shown').nullish() }
const thinking = z.discriminatedUnion('type', [
  /** The budget is advice: `max_tokens` bounds thinking and answer together. */
  z.strictObject({ type: z.literal('enabled'), budget_tokens: z.int().min(1).nullish(), ...display }),
  z.strictObject({ type: z.literal('adaptive'), ...display }),
  z.strictObject({ type: z.literal('disabled') }),
])

const emptyOnly = (what: string) => z.union([z.null(), z.array(z.unknown()).max(0, what)], what).optional()

const asked = {
  model: z.string().min(1).max(128),
  messages: z.array(message).min(1).max(LIST_ITEMS_MAX),
  system: text('only text is supported in system').nullish(),
  tools: z.array(tool).max(128).nullish(),
  tool_choice: toolChoice.nullish(),
  thinking: thinking.nullish(),
  output_config: z
    .strictObject({
      effort: z.enum(['low', 'medium', 'high', 'xhigh', 'max']).nullish(),
      format: z.strictObject({ type: z.literal('json_schema'), schema: z.record(z.string(), z.unknown()) }).nullish(),
    })
    .nullish(),
  mcp_servers: emptyOnly('MCP servers are not supported'),
  ...cached,
}

export const anthropicBodySchema = z.strictObject({
  ...asked,
  max_tokens: z.int().min(1).max(MAX_TOKENS_MAX),
  stop_sequences: z.array(z.string().min(1, ENDS).max(256, ENDS)).max(16).nullish(),
  stream: z.boolean().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z
    .int()
    .min(0)
    .max(2 ** 31 - 1)
    .nullish(),
  metadata: z.strictObject({ user_id: z.string().max(512).nullish() }).nullish(),
  service_tier: z.enum(['auto', 'standard_only']).nullish(),
  speed: z.literal('standard').nullish(),
  container: z.null('containers are not supported').optional(),
  /** Anthropic's tool runner asks for one, and goes on without where it is told so (anthropic_format.ts). */
  thread: z.null('message threads are not supported; send the whole conversation').optional(),
  inference_geo: z.null('is not supported').optional(),
  diagnostics: z.null('is not supported').optional(),
})

/** The body of `count_tokens`: a request without what only an answer needs. */
export const anthropicCountSchema = z.strictObject(asked)

export type AnthropicBody = z.infer<typeof anthropicBodySchema>
export type AnthropicCount = z.infer<typeof anthropicCountSchema>
