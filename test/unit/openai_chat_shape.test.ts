// What a client asks of an answer's shape: which requests get a grammar, which are refused with keyword and path.
import { expect, test } from 'vitest'
import { openAiChat } from '../../schema/dialects/openai_chat.ts'

const context = { requestId: '019a0000-0000-7000-8000-000000000001', created: 1, seed: '1' }
const hello = { model: 'm', messages: [{ role: 'user', content: 'hi' }] }
const parse = (extra: object) => openAiChat.parse({ ...hello, ...extra }, context)
const grammarOf = (extra: object): string | undefined => {
  const result = parse(extra)
  if (!result.ok) throw new Error(result.error.message)
  return result.value.grammar?.text
}

const schema = { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'], additionalProperties: false }
const tool = (extra: object = {}) => ({ type: 'function', function: { name: 'f', parameters: schema, ...extra } })
const format = (inner: object) => ({
  response_format: { type: 'json_schema', json_schema: { name: 'x', schema: inner } },
})

test('free answers carry no grammar', () => {
  for (const extra of [
    {},
    { response_format: { type: 'text' } },
    { tools: [tool()] },
    { tools: [tool({ strict: false })], tool_choice: 'auto', parallel_tool_calls: true },
    { tools: [tool({ strict: true })], tool_choice: 'none' },
    { parallel_tool_calls: false },
  ])
    expect(grammarOf(extra), JSON.stringify(extra)).toBeUndefined()
})

test('no tool may be called where none is declared, or none wished', () => {
  const noCalls = (extra: object): boolean | undefined => {
    const result = parse(extra)
    return result.ok ? result.value.noCalls : undefined
  }
  for (const extra of [{}, { tools: [] }, { tools: null }, { tools: [tool()], tool_choice: 'none' }])
    expect(noCalls(extra), JSON.stringify(extra)).toBe(true)
  for (const tool_choice of [undefined, null, 'auto', 'required', { type: 'function', function: { name: 'f' } }])
    expect(noCalls({ tools: [tool()], tool_choice }), JSON.stringify(tool_choice)).toBeUndefined()
})

test('demanded shapes carry one', () => {
  for (const extra of [
    { response_format: { type: 'json_object' } },
    format(schema),
    { tools: [tool({ strict: true })] },
    { tools: [tool()], tool_choice: 'required' },
    { tools: [tool()], tool_choice: { type: 'function', function: { name: 'f' } } },
    { tools: [tool()], parallel_tool_calls: false },
    { tools: [{ type: 'function', function: { name: 'g' } }], tool_choice: 'required' },
  ])
    expect(grammarOf(extra), JSON.stringify(extra)).toContain('root ::= ')
})

test('the schema is shown to the model as the client spelled it', () => {
  const bodyText =
    '{"model":"m","messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema","json_schema":{"schema":{"enum":[1.0,2]}}}}'
  const result = openAiChat.parse(JSON.parse(bodyText), { ...context, bodyText })
  if (!result.ok) throw new Error(result.error.message)
  expect(result.value.prompt).toContain('## Response Format:')
  expect(result.value.prompt).toContain('{"enum": [1.0, 2]}')
})

test.each<[object, string]>([
  [format({ not: {} }), 'response_format.json_schema.schema.not'],
  [
    format({ type: 'object', properties: { a: { type: 'array', contains: {} } } }),
    'response_format.json_schema.schema.properties.a.contains',
  ],
  [
    { tools: [tool(), tool({ strict: true, parameters: { type: 'object', properties: { a: { multipleOf: 3 } } } })] },
    'tools.1.function.parameters.properties.a.multipleOf',
  ],
  [{ tools: [tool({ strict: true, parameters: { type: 'object' } })] }, 'tools.0.function.parameters.properties'],
  [{ tools: [tool({ strict: true, parameters: { type: 'string' } })] }, 'tools.0.function.parameters'],
  [
    { tools: [tool({ strict: true, parameters: { type: 'object', properties: { 'a"b': true } } })] },
    'tools.0.function.parameters.properties.a"b',
  ],
])('%j is a 400 that names its place', (extra, param) => {
  const result = parse(extra)
  expect(result).toMatchObject({ ok: false, error: { code: 'invalid_request', param } })
  expect(result.ok ? '' : result.error.message).toContain(`${param}: `)
})

test('a tool that is not strict may have a schema without a grammar', () => {
  const odd = tool({ parameters: { type: 'object', properties: { a: { not: {} } } } })
  expect(grammarOf({ tools: [odd], tool_choice: 'required' })).toContain('string=\\"true\\"')
})

test('a parameter that is required twice is written once', () => {
  const ask = (required: string[]) =>
    grammarOf({
      tools: [tool({ strict: true, parameters: { type: 'object', properties: {}, required } })],
      tool_choice: 'required',
    })
  expect(ask(['q', 'q'])).toBe(ask(['q']))
})

test('no JSON makes a shape throw', () => {
  const values: unknown[] = [null, true, 0, '', [], {}, [[]], [{}], [null], { type: 'object' }, 'user', -1e308]
  const keywords = [
    'type',
    'properties',
    'required',
    'items',
    'enum',
    'const',
    'anyOf',
    'oneOf',
    'allOf',
    '$ref',
    'pattern',
  ]
  const more = [
    'format',
    'minLength',
    'minimum',
    'prefixItems',
    'additionalProperties',
    'minItems',
    'minProperties',
    '$defs',
  ]
  for (const keyword of [...keywords, ...more])
    for (const value of values) {
      expect(typeof parse(format({ [keyword]: value })).ok).toBe('boolean')
      expect(typeof parse(format({ type: 'object', properties: { a: { [keyword]: value } } })).ok).toBe('boolean')
      expect(typeof parse({ tools: [tool({ strict: true, parameters: { [keyword]: value } })] }).ok).toBe('boolean')
    }
})
