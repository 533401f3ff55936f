// The body of POST /v1/chat/completions, as OpenAI and DeepSeek clients send it. Parameters that Sparrow does not have are refused by
// name, since ignoring them would change an answer without a word.
import { z } from 'zod'
import { type ApiError, apiError, fail } from '../errors.ts'
import { LIST_ITEMS_MAX, MAX_TOKENS_DEFAULT } from '../limits.ts'
import type { Run } from '../wire.ts'
import { chatLogprobs, sampling, tokenLimit } from './openai_sampling.ts'
import { ENDS } from './read_shape.ts'

const NAME = /^[a-zA-Z0-9_-]{1,64}$/
/** Of a call in an earlier answer: a model may call what nobody declared, by any name, and its answer must be taken back. */
export const calledName = z.string().min(1, ENDS).max(256, ENDS)
export const callId = calledName
const textPart = z.object({ type: z.literal('text', 'only text parts are supported'), text: z.string() })
const content = z.union(
  [z.string(), z.array(textPart).min(1, ENDS)],
  'must be a string or an array of one or more text parts',
)

const toolCall = z.object({
  id: callId,
  type: z.literal('function').nullish(),
  function: z.object({
    name: calledName,
    /** JSON text; some clients send the object itself. */
    arguments: z.union([z.string(), z.record(z.string(), z.unknown())]),
  }),
})

const assistant = z
  .object({
    role: z.literal('assistant'),
    content: content.nullish(),
    reasoning_content: z.string().nullish(),
    tool_calls: z.array(toolCall).max(128, ENDS).nullish(),
    /** The answer goes on where this message, the last one, ends. */
    prefix: z.boolean().nullish(),
    function_call: z.null('is not supported; use tool_calls').optional(),
    refusal: z.null('is not supported').optional(),
    audio: z.null('is not supported').optional(),
  })
  .refine(
    // OpenAI's client makes null of an empty answer, or of one that was cut off in its reasoning, and sends it back so.
    ({ content, tool_calls, prefix, reasoning_content }) =>
      content !== undefined || (tool_calls ?? []).length > 0 || (prefix && reasoning_content),
    { path: ['content'], message: 'is required unless the message has tool_calls', ...ENDS },
  )
  .refine(({ tool_calls, prefix }) => !prefix || (tool_calls ?? []).length === 0, {
    path: ['prefix'],
    message: 'does not go with tool_calls',
    ...ENDS,
  })

const message = z.discriminatedUnion('role', [
  z.object({ role: z.literal('system'), content }),
  z.object({ role: z.literal('developer'), content }),
  z.object({ role: z.literal('user'), content }),
  assistant,
  z.object({ role: z.literal('tool'), content, tool_call_id: callId }),
])

const tool = z.object({
  type: z.literal('function'),
  function: z.looseObject({
    name: z.string().regex(NAME, ENDS),
    description: z.string().nullish(),
    parameters: z.record(z.string(), z.unknown()).nullish(),
    strict: z.boolean().nullish(),
  }),
})

const responseFormat = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object') }),
  z.object({
    type: z.literal('json_schema'),
    json_schema: z.object({
      name: z.string().regex(NAME).nullish(),
      description: z.string().nullish(),
      schema: z.record(z.string(), z.unknown()),
      strict: z.boolean().nullish(),
    }),
  }),
])

export const streamOptions = z.object({
  include_usage: z.boolean().nullish(),
  include_obfuscation: z.literal(false, 'is not supported').nullish(),
})

const label = z.string().max(512)

/** Who asks and what about: `user_id` and `prompt_cache_key` count, the others are taken and, as at DeepSeek, not used. */
export const caller = {
  /** DeepSeek's: isolates the cache of one of the customer's users from the others'. */
  user_id: z
    .string()
    .regex(/^[a-zA-Z0-9_-]{1,512}$/, 'must be 1 to 512 letters, digits, _ and -')
    .nullish(),
  prompt_cache_key: label.nullish(),
  user: label.nullish(),
  safety_identifier: label.nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
  store: z.boolean().nullish(),
}

export const callerOf = (body: z.infer<z.ZodObject<typeof caller>>): Pick<Run, 'userId' | 'routingHint'> => ({
  userId: body.user_id ?? undefined,
  routingHint: body.prompt_cache_key ?? undefined,
})

const UNSUPPORTED = 'this value is not supported'
const absent = z.null(UNSUPPORTED).optional()

/** Parameters with the values that mean what Sparrow does anyway. */
const neutral = {
  verbosity: z.literal('medium', UNSUPPORTED).nullish(),
  modalities: z
    .array(z.unknown(), UNSUPPORTED)
    .refine((all) => all.every((one) => one === 'text'), UNSUPPORTED)
    .meta({ items: { const: 'text' } })
    .nullish(),
  functions: z.array(z.unknown(), UNSUPPORTED).max(0, UNSUPPORTED).nullish(),
  function_call: z.enum(['none', 'auto'], UNSUPPORTED).nullish(),
  ...{ audio: absent, prediction: absent, web_search_options: absent },
}

const bodyShape = z.object({
  model: z.string().min(1).max(128),
  // Refused as malformed before the shape is looked at.
  messages: z.array(message).meta({ minItems: 1, maxItems: LIST_ITEMS_MAX }),
  thinking: z.object({ type: z.enum(['enabled', 'disabled']) }).nullish(),
  reasoning_effort: z.enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max']).nullish(),
  max_tokens: tokenLimit,
  max_completion_tokens: tokenLimit,
  ...sampling,
  ...chatLogprobs,
  ...caller,
  stream: z.boolean().nullish(),
  stream_options: streamOptions.nullish(),
  tools: z.array(tool).max(128).nullish(),
  tool_choice: z
    .union(
      [
        z.enum(['none', 'auto', 'required']),
        z.object({ type: z.literal('function'), function: z.object({ name: z.string().regex(NAME) }) }),
      ],
      'must be "none", "auto", "required" or name a function',
    )
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  response_format: responseFormat.nullish(),
  ...neutral,
})

/** Tokens an answer may have; where both names are given the newer one counts. */
export const maxTokensOf = (body: Pick<z.infer<typeof bodyShape>, 'max_tokens' | 'max_completion_tokens'>): number =>
  body.max_completion_tokens ?? body.max_tokens ?? MAX_TOKENS_DEFAULT

export const chatBodySchema = bodyShape
  .refine((body) => !body.top_logprobs || body.logprobs, { path: ['top_logprobs'], message: 'needs logprobs: true' })
  .refine((body) => (body.min_tokens ?? 0) <= maxTokensOf(body), {
    path: ['min_tokens'],
    message: 'exceeds the most tokens the answer may have',
  })
export type ChatBody = z.infer<typeof chatBodySchema>
export type ChatMessage = ChatBody['messages'][number]

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export const noObject = fail('invalid_request', { message: 'The request body must be a JSON object.' })

/** 400: what makes the body no chat request at all. */
export const malformed = (body: unknown): ApiError | undefined => {
  if (!isObject(body)) return noObject.error
  const { messages } = body
  if (!Array.isArray(messages) || messages.length === 0)
    return apiError('invalid_request', { message: 'messages must be a non-empty array.', param: 'messages' })
  const bad = messages.findIndex((item) => !isObject(item))
  if (bad < 0) return undefined
  return apiError('invalid_request', { message: `messages.${bad} must be an object.`, param: `messages.${bad}` })
}

type Issue = z.core.$ZodIssue

/** Of a union, the branch that got furthest into the value is the one that the client meant. */
const deepest = (issue: Issue): Issue => {
  if (issue.code !== 'invalid_union') return issue
  const branches = issue.errors.flatMap((branch) => branch.slice(0, 1).map(deepest))
  const best = branches.reduce<Issue | undefined>((a, b) => (a && a.path.length >= b.path.length ? a : b), undefined)
  return best && best.path.length > 0 ? { ...best, path: [...issue.path, ...best.path] } : issue
}

/** 422: the first thing that zod found, with the parameter in the client's own naming. */
export const badParameter = (error: z.ZodError): ApiError => {
  const first = error.issues[0]
  if (!first) return apiError('invalid_parameter')
  const issue = deepest(first)
  const param = issue.path.map(String).join('.')
  return apiError('invalid_parameter', { message: `${param}: ${issue.message}`, param })
}
