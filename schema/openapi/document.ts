// The OpenAPI 3.1 document, out of the zod schemas that validate requests: what is published is what is checked.
import { z } from 'zod'
import { anthropicStatus } from '../dialects/anthropic_format.ts'
import { ERRORS, type ErrorCode, statusOf } from '../errors.ts'
import { HEADERS, headersOf } from './headers.ts'
import { type Named, OPERATIONS, type Operation } from './operations.ts'

export type JsonSchema = { readonly [key: string]: unknown }

export interface OpenApiDocument {
  readonly servers: readonly { readonly url: string }[]
  readonly components: { readonly schemas: Record<string, JsonSchema> }
  readonly paths: Record<
    string,
    Record<string, { readonly responses: Record<string, { readonly description: string }> }>
  >
}

const converted = new WeakMap<z.ZodType, JsonSchema>()

/** Once for each schema: the large ones take milliseconds. */
const jsonSchemaOf = (schema: z.ZodType): JsonSchema => {
  const before = converted.get(schema)
  if (before) return before
  const { $schema: _, ...json } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
  converted.set(schema, json)
  return json
}

const reference = ({ name }: Named) => ({ $ref: `#/components/schemas/${name}` })

const EVERYWHERE = ['invalid_api_key', 'permission_denied', 'internal_error'] as const
const OF_A_COUNT: readonly ErrorCode[] = [
  ...EVERYWHERE,
  ...(['malformed_request', 'invalid_request', 'model_not_found', 'request_too_large', 'invalid_parameter'] as const),
  ...(['rate_limit_exceeded', 'no_node'] as const),
]
const OF_A_RUN: readonly ErrorCode[] = [
  ...OF_A_COUNT,
  ...(['insufficient_balance', 'idempotency_in_progress', 'idempotency_lost', 'context_length_exceeded'] as const),
  ...(['idempotency_mismatch', 'insufficient_quota', 'node_failed', 'stream_interrupted'] as const),
]

const takesDeadline = (body: Named | undefined): boolean =>
  body !== undefined && 'deadline_ms' in Object(jsonSchemaOf(body.schema).properties)

const codesOf = ({ method, secured, event, tag, body, parameters = [] }: Operation): readonly ErrorCode[] => {
  if (!secured) return ['internal_error']
  if (method === 'post' && !event) return OF_A_COUNT
  if (method === 'post') return [...OF_A_RUN, ...(takesDeadline(body) ? (['deadline_exceeded'] as const) : [])]
  const missing = tag === 'Models' ? 'model_not_found' : 'not_found'
  const has = (place: string): boolean => parameters.some((parameter) => parameter.in === place)
  return [
    ...EVERYWHERE,
    ...(has('path') ? ([missing] as const) : []),
    ...(has('query') ? (['invalid_parameter'] as const) : []),
  ]
}

/** Each error status that an operation answers with, and what it means there. */
const failuresOf = (operation: Operation): [status: number, text: string][] => {
  const seenAs = operation.error.name === 'AnthropicError' ? anthropicStatus : statusOf
  const texts = new Map<number, string[]>()
  for (const code of codesOf(operation)) {
    const status = seenAs(code)
    texts.set(status, [...(texts.get(status) ?? []), ERRORS[code].message])
  }
  return [...texts].map(([status, all]): [number, string] => [status, all.join(' ')]).sort(([x], [y]) => x - y)
}

const headersJson = (status: number, { event }: Operation): object =>
  Object.fromEntries(
    headersOf(status, event !== undefined).map((name) => [name, { $ref: `#/components/headers/${name}` }]),
  )

const answersOf = (operation: Operation): object => {
  const { answer, event, error } = operation
  const stream = event && { 'text/event-stream': { schema: reference(event) } }
  const ok = {
    description: operation.summary,
    headers: headersJson(200, operation),
    content: { 'application/json': { schema: reference(answer) }, ...stream },
  }
  const failures = failuresOf(operation).map(([status, description]) => [
    status,
    {
      description,
      headers: headersJson(status, operation),
      content: { 'application/json': { schema: reference(error) } },
    },
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

/** What of it is the same wherever it is served. */
type Parts = Omit<OpenApiDocument, 'servers'>

/** Without what is undefined, as JSON has it. */
const plain = (value: object): Parts => JSON.parse(JSON.stringify(value)) as Parts

const build = (): Parts => {
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
      headers: Object.fromEntries(
        Object.entries(HEADERS).map(([name, { description, type }]) => [name, { description, schema: { type } }]),
      ),
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer', description: '`Authorization: Bearer sk-...`' },
        apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
      },
    },
  })
}

let built: Parts | undefined

/** The document for a service at `server`; made once, when first asked for. */
export const openApiDocument = (server: string): OpenApiDocument => {
  built ??= build()
  return { ...built, servers: [{ url: server }] }
}
