// The OpenAPI 3.1 document, out of the zod schemas that validate requests: what is published is what is checked.
import { z } from 'zod'
import { anthropic } from '../dialects/anthropic.ts'
import type { Dialect } from '../dialects/dialect.ts'
import { openAiChat } from '../dialects/openai_chat.ts'
import { ERRORS, type ErrorCode, statusOf } from '../errors.ts'
import { type Named, OPERATIONS, type Operation } from './operations.ts'

export type JsonSchema = { readonly [key: string]: unknown }

const jsonSchemaOf = (schema: z.ZodType): JsonSchema => {
  const { $schema: _, ...json } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
  return json
}

const reference = ({ name }: Named) => ({ $ref: `#/components/schemas/${name}` })

/** Codes that only a node, an operator or the log ever sees. */
const INTERNAL: readonly string[] = ['invalid_signature', 'conflict', 'client_closed']

/** What each status means, out of the error table. */
const textsOf = (dialect: Pick<Dialect, 'status'>): ReadonlyMap<number, string> => {
  const texts = new Map<number, string>()
  for (const [code, { message }] of Object.entries(ERRORS)) {
    if (INTERNAL.includes(code)) continue
    const status = dialect.status?.(code as ErrorCode) ?? statusOf(code as ErrorCode)
    const known = texts.get(status)
    texts.set(status, known === undefined ? message : `${known} ${message}`)
  }
  return texts
}

const TEXTS = { anthropic: textsOf(anthropic), openAi: textsOf(openAiChat) }

const GENERATION_STATUSES = [400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504]
/** Nothing is held, kept or waited for. */
const COUNT_STATUSES = [400, 401, 403, 404, 413, 422, 429, 500, 503]
const READ_STATUSES = [401, 403, 404, 422, 500]

/** Each error status of an operation and what it means; Anthropic's clients see some as others. */
export const failuresOf = ({ method, error, secured, event }: Operation): [status: number, text: string][] => {
  if (!secured) return [[500, TEXTS.openAi.get(500) ?? '']]
  const texts = error.name === 'AnthropicError' ? TEXTS.anthropic : TEXTS.openAi
  const statuses = method === 'get' ? READ_STATUSES : event ? GENERATION_STATUSES : COUNT_STATUSES
  return statuses
    .map((status) => (status === 503 && texts === TEXTS.anthropic ? 529 : status))
    .map((status): [number, string] => [status, texts.get(status) ?? ''])
}

const answersOf = (operation: Operation): object => {
  const { answer, event, error } = operation
  const stream = event && { 'text/event-stream': { schema: reference(event) } }
  const ok = {
    description: operation.summary,
    content: { 'application/json': { schema: reference(answer) }, ...stream },
  }
  const failures = failuresOf(operation).map(([status, description]) => [
    status,
    { description, content: { 'application/json': { schema: reference(error) } } },
  ])
  return { 200: ok, ...Object.fromEntries(failures) }
}

const operationJson = (operation: Operation, isAlias: boolean): object => {
  const { id, tag, summary, description, parameters = [], body, secured } = operation
  return {
    operationId: isAlias ? undefined : id,
    tags: [tag],
    summary,
    description,
    security: secured ? [{ bearer: [] }, { apiKey: [] }] : [],
    parameters: parameters.map(({ schema, ...rest }) => ({
      ...{ ...rest, required: rest.in === 'path', schema: jsonSchemaOf(schema) },
    })),
    requestBody: body && { required: true, content: { 'application/json': { schema: reference(body) } } },
    responses: answersOf(operation),
  }
}

/** Without what is undefined, as JSON has it. */
const plain = (value: object): JsonSchema => JSON.parse(JSON.stringify(value)) as JsonSchema

const build = (): JsonSchema => {
  const paths: Record<string, Record<string, object>> = {}
  const schemas: Record<string, JsonSchema> = {}
  for (const operation of OPERATIONS) {
    for (const path of [operation.path, ...operation.also]) {
      paths[path] = { ...paths[path], [operation.method]: operationJson(operation, path !== operation.path) }
    }
    for (const named of [operation.body, operation.answer, operation.event, operation.error]) {
      if (named) schemas[named.name] ??= jsonSchemaOf(named.schema)
    }
  }
  return plain({
    openapi: '3.1.0',
    info: {
      title: 'Sparrow',
      version: '1.0.0',
      description: 'A metered API for language models that takes DeepSeek’s, OpenAI’s and Anthropic’s requests.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    paths,
    components: {
      schemas,
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer', description: '`Authorization: Bearer sk-...`' },
        apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
      },
    },
  })
}

let built: JsonSchema | undefined

/** The document for a service at `server`; made once, when first asked for. */
export const openApiDocument = (server: string): JsonSchema => {
  built ??= build()
  return { ...built, servers: [{ url: server }] }
}
