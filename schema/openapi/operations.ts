// Every public endpoint, one entry each: the document under /openapi.json and the page under /docs are made from this list.
import { z } from 'zod'
import { anthropic } from '../dialects/anthropic.ts'
import {
  anthropicCountAnswerSchema,
  anthropicErrorSchema,
  anthropicEventSchema,
  anthropicMessageSchema,
} from '../dialects/anthropic_answer.ts'
import { anthropicBodySchema, anthropicCountSchema } from '../dialects/anthropic_body.ts'
import { completions } from '../dialects/completions.ts'
import { completionChunkSchema, completionSchema } from '../dialects/completions_answer.ts'
import { completionBodySchema } from '../dialects/completions_body.ts'
import { messageCounter, responseCounter, tokenizer } from '../dialects/counters.ts'
import { openAiChat } from '../dialects/openai_chat.ts'
import { chatChunkSchema, chatCompletionSchema, openAiErrorSchema } from '../dialects/openai_chat_answer.ts'
import { chatBodySchema } from '../dialects/openai_chat_body.ts'
import { responses } from '../dialects/responses.ts'
import { responseEventSchema, responseSchema, responsesCountAnswerSchema } from '../dialects/responses_answer.ts'
import { responsesBodySchema, responsesCountSchema } from '../dialects/responses_body.ts'
import { tokenizeAnswerSchema, tokenizePromptSchema } from '../dialects/tokenize.ts'
import { IDEMPOTENCY_KEY_LENGTH_MAX } from '../limits.ts'
import {
  balanceSchema,
  healthSchema,
  modelListSchema,
  modelSchema,
  usageDailyQuery,
  usageDailySchema,
  usageEntrySchema,
  usageListSchema,
  usagePrefixSchema,
  usageQuery,
} from '../public_answers.ts'

/** A schema and its name in the document. */
export interface Named {
  readonly name: string
  readonly schema: z.ZodType
}

export interface Parameter {
  readonly name: string
  readonly in: 'query' | 'path' | 'header'
  readonly description: string
  readonly schema: z.ZodType
}

export interface Operation {
  readonly id: string
  readonly method: 'get' | 'post'
  readonly path: string
  /** Other paths of the same endpoint. */
  readonly also: readonly string[]
  readonly tag: string
  readonly summary: string
  readonly description?: string
  readonly parameters?: readonly Parameter[]
  readonly body?: Named
  readonly answer: Named
  /** One event of a streamed answer. */
  readonly event?: Named
  readonly error: Named
  /** False: takes no key. */
  readonly secured: boolean
}

const openAiError = { name: 'Error', schema: openAiErrorSchema }
const anthropicError = { name: 'AnthropicError', schema: anthropicErrorSchema }
const named = (name: string, schema: z.ZodType): Named => ({ name, schema })

const IDEMPOTENCY_KEY: Parameter = {
  name: 'Idempotency-Key',
  in: 'header',
  description: 'Of equal requests under one key one runs; its answer is kept for a day and given again, at no charge.',
  schema: z.string().min(1).max(IDEMPOTENCY_KEY_LENGTH_MAX).optional(),
}

const posted = (
  { paths: [path = '', ...also] }: { readonly paths: readonly string[] },
  rest: Pick<Operation, 'id' | 'tag' | 'summary' | 'description' | 'body' | 'answer' | 'event' | 'error'>,
): Operation => ({ method: 'post', path, also, secured: true, ...rest })

const generation: typeof posted = (dialect, rest) => ({ ...posted(dialect, rest), parameters: [IDEMPOTENCY_KEY] })

const GENERATIONS: readonly Operation[] = [
  generation(openAiChat, {
    ...{ id: 'createChatCompletion', tag: 'Chat completions', summary: 'An answer to a conversation' },
    description:
      'As OpenAI and DeepSeek have it. With `stream` the answer is server-sent events that end in `data: [DONE]`.',
    body: named('ChatRequest', chatBodySchema),
    answer: named('ChatCompletion', chatCompletionSchema),
    event: named('ChatCompletionChunk', chatChunkSchema),
    error: openAiError,
  }),
  generation(completions, {
    ...{
      id: 'createCompletion',
      tag: 'Completions',
      summary: 'A text that goes on; with `suffix`, one that fills a gap',
    },
    description:
      'The prompt goes to the model as it is. With `stream` the answer is server-sent events that end in `data: [DONE]`.',
    body: named('CompletionRequest', completionBodySchema),
    answer: named('Completion', completionSchema),
    event: named('CompletionChunk', completionChunkSchema),
    error: openAiError,
  }),
  generation(anthropic, {
    ...{ id: 'createMessage', tag: 'Messages', summary: 'An answer as Anthropic’s Messages' },
    description: 'The key may come as `x-api-key`. Prompts are cached by themselves; `cache_control` changes nothing.',
    body: named('MessageRequest', anthropicBodySchema),
    answer: named('Message', anthropicMessageSchema),
    event: named('MessageEvent', anthropicEventSchema),
    error: anthropicError,
  }),
  generation(responses, {
    ...{ id: 'createResponse', tag: 'Responses', summary: 'An answer as OpenAI’s Responses, without a store' },
    description:
      'Nothing is stored: each request carries its whole conversation, and every answer says `store: false`.',
    body: named('ResponseRequest', responsesBodySchema),
    answer: named('Response', responseSchema),
    event: named('ResponseEvent', responseEventSchema),
    error: openAiError,
  }),
]

const tokenizeBody = z.union([tokenizePromptSchema, chatBodySchema])

const COUNTS: readonly Operation[] = [
  posted(messageCounter, {
    ...{ id: 'countMessageTokens', tag: 'Messages', summary: 'Tokens of a message’s prompt; free' },
    body: named('MessageCountRequest', anthropicCountSchema),
    answer: named('MessageCount', anthropicCountAnswerSchema),
    error: anthropicError,
  }),
  posted(responseCounter, {
    ...{ id: 'countResponseTokens', tag: 'Responses', summary: 'Tokens of a response’s prompt; free' },
    body: named('ResponseCountRequest', responsesCountSchema),
    answer: named('ResponseCount', responsesCountAnswerSchema),
    error: openAiError,
  }),
  posted(tokenizer, {
    ...{ id: 'tokenize', tag: 'Tokens', summary: 'Token ids of a prompt, or of a chat request; free' },
    body: named('TokenizeRequest', tokenizeBody),
    answer: named('Tokens', tokenizeAnswerSchema),
    error: openAiError,
  }),
]

const read = (
  path: string,
  also: readonly string[],
  rest: Pick<Operation, 'id' | 'tag' | 'summary' | 'answer'> & Partial<Operation>,
): Operation => ({ method: 'get', path, also, error: openAiError, secured: true, ...rest })

const id = (name: string, description: string): Parameter => ({
  ...{ name, in: 'path', description, schema: z.string() },
})

const queryOf = (fields: Readonly<Record<string, z.ZodType>>): Parameter[] =>
  Object.entries(fields).map(([name, schema]) => ({ name, in: 'query', description: schema.description ?? '', schema }))

const READS: readonly Operation[] = [
  read('/v1/models', ['/models', '/beta/models'], {
    ...{ id: 'listModels', tag: 'Models', summary: 'Models, their context and their prices' },
    answer: named('ModelList', modelListSchema),
  }),
  read('/v1/models/{id}', ['/models/{id}', '/beta/models/{id}'], {
    ...{ id: 'getModel', tag: 'Models', summary: 'One model' },
    parameters: [id('id', 'Name of the model')],
    answer: named('Model', modelSchema),
  }),
  read('/user/balance', ['/v1/user/balance'], {
    ...{ id: 'getBalance', tag: 'Account', summary: 'What the account has left' },
    answer: named('Balance', balanceSchema),
  }),
  read('/v1/usage', ['/usage'], {
    ...{ id: 'listUsage', tag: 'Account', summary: 'What this key was charged for, newest first' },
    parameters: queryOf(usageQuery),
    answer: named('UsageList', usageListSchema),
  }),
  read('/v1/usage/daily', ['/usage/daily'], {
    ...{ id: 'listUsageDays', tag: 'Account', summary: 'What this key was charged by day and model' },
    description: 'Sums of the rows of `/v1/usage` by the day (UTC) they were settled; kept when the rows are gone.',
    parameters: queryOf(usageDailyQuery),
    answer: named('UsageDaily', usageDailySchema),
  }),
  read('/v1/usage/{id}', ['/usage/{id}'], {
    ...{ id: 'explainUsage', tag: 'Account', summary: 'One charge, line by line' },
    parameters: [id('id', 'Request id, as in `x-request-id`')],
    answer: named('Usage', usageEntrySchema),
  }),
  read('/v1/usage/{id}/prefix', ['/usage/{id}/prefix'], {
    ...{ id: 'explainPrefix', tag: 'Account', summary: 'Where a prompt left the path of the most similar earlier one' },
    parameters: [id('id', 'Request id, as in `x-request-id`')],
    answer: named('UsagePrefix', usagePrefixSchema),
  }),
  read('/healthz', [], {
    ...{ id: 'health', tag: 'Service', summary: 'Whether it is up, and live nodes', secured: false },
    answer: named('Health', healthSchema),
  }),
]

export const OPERATIONS: readonly Operation[] = [...GENERATIONS, ...COUNTS, ...READS]
