// The published document: valid OpenAPI 3.1, complete, and true of what the parsers take.
import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020 } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import { expect, test } from 'vitest'
import { COUNTERS } from '../../schema/dialects/counters.ts'
import { DIALECTS } from '../../schema/dialects/index.ts'
import { openApiDocument } from '../../schema/openapi/document.ts'
import { OPERATIONS } from '../../schema/openapi/operations.ts'

interface Published {
  readonly parameters?: object[]
  readonly responses: Record<string, { description: string }>
}

const document = openApiDocument('http://127.0.0.1:8787') as {
  paths: Record<string, Record<string, Published>>
  components: { schemas: Record<string, object> }
}

test('it is valid OpenAPI 3.1', async () => {
  const validator = new Validator()
  expect(await validator.validate(structuredClone(document))).toEqual({ valid: true })
  expect(validator.version).toBe('3.1')
})

test('it has every path of every dialect and counter', () => {
  const paths = [...DIALECTS, ...COUNTERS].flatMap((one) => one.paths)
  expect(paths.filter((path) => !document.paths[path]?.post)).toEqual([])
})

test('it types what a list of usage is asked', () => {
  expect(document.paths['/v1/usage']?.get?.parameters).toMatchObject([
    ...['from', 'to', 'limit'].map((name) => ({ name, in: 'query', required: false, schema: { type: 'integer' } })),
    { name: 'after', in: 'query', required: false, schema: { type: 'string', format: 'uuid' } },
  ])
})

test('it names the header that pays once, on what is charged only', () => {
  const taking = OPERATIONS.filter(({ parameters }) => parameters?.some(({ name }) => name === 'Idempotency-Key'))
  expect(taking.map(({ id }) => id)).toEqual([
    'createChatCompletion',
    'createCompletion',
    'createMessage',
    'createResponse',
  ])
  expect(document.paths['/v1/messages']?.post?.parameters).toMatchObject([{ in: 'header', required: false }])
})

test('each endpoint has the errors that it can answer, in words for its clients', () => {
  const failures = (path: string, method: string): Record<string, string> =>
    Object.fromEntries(
      Object.entries(document.paths[path]?.[method]?.responses ?? {}).map(([status, of]) => [status, of.description]),
    )
  expect(failures('/v1/messages', 'post')[400]).toContain('A parameter has an unsupported value.')
  expect(failures('/v1/messages', 'post')[413]).toBe('The request body is too large.')
  expect(failures('/v1/messages', 'post')[529]).toContain('No node can take this request')
  expect(failures('/v1/usage', 'get')[401]).toBe('The API key is missing, wrong, expired or revoked.')
  const statuses = (path: string, method = 'get') => Object.keys(failures(path, method)).filter((one) => one !== '200')
  expect(statuses('/v1/messages/count_tokens', 'post')).toEqual([
    '400',
    '401',
    '403',
    '404',
    '413',
    '429',
    '500',
    '529',
  ])
  const runs = ['/v1/chat/completions', '/v1/completions', '/v1/messages', '/v1/responses']
  // The others take no deadline.
  expect(runs.filter((path) => statuses(path, 'post').includes('504'))).toEqual(runs.slice(0, 2))
  expect(statuses('/v1/models')).toEqual(['401', '403', '500'])
  expect(statuses('/v1/models/{id}')).toEqual(['401', '403', '404', '500'])
  for (const path of ['/v1/usage', '/v1/usage/daily']) expect(statuses(path)).toEqual(['401', '403', '422', '500'])
})

type Schema = { readonly properties?: object; readonly additionalProperties?: unknown }

/** Objects of `schema` that may hold fields it does not name. */
const openIn = (schema: object, path: string): string[] => {
  const { properties, additionalProperties }: Schema = schema
  const inner = Object.entries(schema).flatMap(([key, value]) =>
    typeof value === 'object' && value !== null ? openIn(value, `${path}.${key}`) : [],
  )
  return properties && additionalProperties !== false ? [path, ...inner] : inner
}

test('it names every field of every answer', () => {
  const names = OPERATIONS.flatMap(({ answer, event, error }) =>
    [answer, event, error].flatMap((one) => one?.name ?? []),
  )
  const open = [...new Set(names)].flatMap((name) => openIn(document.components.schemas[name] ?? {}, name))
  expect(open).toEqual([])
})

const conversation = { model: 'm', messages: [{ role: 'user', content: 'Hi' }] }
const EXAMPLES: Readonly<Record<string, { good: object; bad: object }>> = {
  createChatCompletion: { good: conversation, bad: { ...conversation, temperature: 3 } },
  createCompletion: { good: { model: 'm', prompt: 'Hi' }, bad: { model: 'm' } },
  createMessage: { good: { ...conversation, max_tokens: 5 }, bad: conversation },
  countMessageTokens: { good: conversation, bad: { ...conversation, max_tokens: 5 } },
  createResponse: { good: { model: 'm', input: 'Hi' }, bad: { model: 'm', input: 'Hi', background: true } },
  countResponseTokens: { good: { model: 'm', input: 'Hi' }, bad: { model: 'm' } },
  tokenize: { good: { model: 'm', prompt: 'Hi' }, bad: { model: 'm' } },
}

test.each(OPERATIONS.filter(({ body }) => body).map((one) => [one.id, one] as const))(
  '%s: the published schema and the parser agree',
  (id, { body, path }) => {
    const ajv = new Ajv2020({ strict: false })
    formats.default(ajv)
    const published = ajv.compile(document.components.schemas[body?.name ?? ''] ?? {})
    const { good, bad } = EXAMPLES[id] ?? {}
    expect([published(good), body?.schema.safeParse(good).success]).toEqual([true, true])
    expect([published(bad), body?.schema.safeParse(bad).success]).toEqual([false, false])
    const parser = [...DIALECTS, ...COUNTERS].find(({ paths }) => paths.includes(path))
    const context = { requestId: 'r', created: 0, seed: '0' }
    expect([parser?.parse(good, context).ok, parser?.parse(bad, context).ok]).toEqual([true, false])
  },
)

const VALUES: readonly unknown[] = [
  ...[null, true, false, -2, -1, 0, 1, 5, 16, 17, 20, 21, 65_536, 65_537, 0.5, 1.5, 2.5, 2 ** 31 - 1, 2 ** 31, 2 ** 53],
  ...['', 'a', 'none', 'auto', 'default', 'flex', 'medium', 'low', 'text', 'disabled'],
  ...[128, 129, 256, 257, 512, 513].map((length) => 'x'.repeat(length)),
  ...[[], {}, ['a'], [''], [1], [[1]], [[]], ['text'], Array(17).fill('a'), Array(129).fill('a'), { x: 1 }, { a: 'b' }],
  ...[{ '1': 1 }, { '1': 101 }, Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [i, 1]))],
  ...['text', 'json_object', 'enabled', 'auto', 'none', 'any'].map((type) => ({ type })),
]

/** What a schema cannot say: one field that depends on others. */
const DEPENDENT = /needs logprobs|exceeds the most tokens|no such tool/

test.each(OPERATIONS.filter(({ body }) => body).map((one) => [one.id, one] as const))(
  '%s: whatever value a field has, the document and the parser say the same of it',
  (id, { body, path }) => {
    const ajv = new Ajv2020({ strict: false })
    formats.default(ajv)
    const schema: { properties?: object; anyOf?: { properties?: object }[] } =
      document.components.schemas[body?.name ?? ''] ?? {}
    const published = ajv.compile(schema)
    const parser = [...DIALECTS, ...COUNTERS].find(({ paths }) => paths.includes(path))
    const names = [schema, ...(schema.anyOf ?? [])].flatMap((one) => Object.keys(one.properties ?? {}))
    const unlike = names.flatMap((name) =>
      VALUES.flatMap((value) => {
        const asked = { ...EXAMPLES[id]?.good, [name]: value }
        const parsed = parser?.parse(asked, { requestId: 'r', created: 0, seed: '0' })
        const error = parsed?.ok === false ? parsed.error.message : ''
        return published(asked) === parsed?.ok || DEPENDENT.test(error) ? [] : [{ name, value, error }]
      }),
    )
    expect(unlike).toEqual([])
  },
)

type Answers = Record<string, { headers?: Record<string, { $ref: string }> }>

test('it names the headers of every answer', () => {
  const { headers } = document.components as unknown as { headers: Record<string, object> }
  const of = (path: string, method: string, status: number): string[] => {
    const answers = document.paths[path]?.[method]?.responses as Answers | undefined
    return Object.values(answers?.[status]?.headers ?? {}).map(({ $ref }) => $ref.replace('#/components/headers/', ''))
  }
  const ids = ['x-request-id', 'request-id']
  expect(of('/healthz', 'get', 200)).toEqual(ids)
  expect(of('/v1/usage', 'get', 401)).toEqual([...ids, 'x-should-retry'])
  expect(of('/v1/messages', 'post', 529)).toEqual(
    expect.arrayContaining(['retry-after', 'server-timing', 'x-ratelimit-reset-tokens']),
  )
  expect(of('/v1/chat/completions', 'post', 200)).toEqual(
    expect.arrayContaining(['idempotent-replayed', 'x-ratelimit-limit-cached-tokens']),
  )
  expect(of('/v1/tokenize', 'post', 200)).toEqual(ids)
  expect(of('/v1/tokenize', 'post', 429)).toContain('retry-after-ms')
  const paths = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, { responses }]) =>
      Object.keys(responses).flatMap((status) => of(path, method, Number(status))),
    ),
  )
  expect([...new Set(paths)].sort()).toEqual(Object.keys(headers).sort())
})
