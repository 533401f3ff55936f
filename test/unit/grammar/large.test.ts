// Schemas that are made to cost: anybody with a key may send one, and one thread serves everybody. What has no grammar is refused
// when its text is as long as a grammar may be, not when all of it is made; each of these took 25 to 150 seconds.
import { expect, test } from 'vitest'
import type { AnswerShape } from '../../../schema/chat/chat_format.ts'
import { deepseekV32Grammar } from '../../../schema/chat/deepseek_v32_grammar.ts'
import { templateGrammar } from '../../../schema/chat/template_grammar.ts'

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)
const properties = (count: number, of: (i: number) => object): object =>
  Object.fromEntries(range(count).map((i) => [`a${i}`, of(i)]))
const bounds = (i: number): object => ({ type: 'number', minimum: -1e15 + i + 0.5, maximum: 1e15 - i })

const shape = (changes: Partial<AnswerShape>): AnswerShape => ({
  ...{ thinking: false, response: undefined, tools: [], choice: 'auto', parallel: true },
  ...changes,
})
const refusal = (schema: object): string | undefined => {
  const made = deepseekV32Grammar(shape({ response: { schema, at: 'schema' } }))
  return made.ok ? undefined : made.error.message
}

const LARGE = 'schema: the schema becomes a grammar of over 512 KB.'
const APART = 'schema.oneOf: needs branches that differ in type or in a required constant property; anyOf needs none.'
const branch = (i: number): object => ({ type: 'object', properties: { a: { const: i } }, required: ['a'] })

test.each([
  [
    'names that others must differ from',
    { type: 'object', properties: {}, required: range(8000).map((i) => `a${i}`), additionalProperties: true },
    LARGE,
  ],
  [
    'names that are required',
    { type: 'object', properties: properties(120_000, () => ({})), required: range(120_000).map((i) => `b${i}`) },
    LARGE,
  ],
  ['bounds of numbers', { type: 'object', properties: properties(4000, bounds) }, LARGE],
  [
    'patterns',
    {
      type: 'object',
      properties: properties(20_000, (i) => ({ type: 'string', pattern: `(a|ab|b.*${i}){3,9}` })),
    },
    LARGE,
  ],
  ['one pattern', { type: 'string', pattern: `^(${range(120_000).join('|')})$` }, LARGE],
  ['branches that must differ', { oneOf: range(8000).map(branch) }, APART],
  [
    'two branches of many values',
    { oneOf: ['x', 'y'].map((name) => ({ enum: range(120_000).map((i) => name + i) })) },
    LARGE,
  ],
])('%s: refused before all of it is made', (_name, schema, message) => {
  expect(refusal(schema)).toBe(message)
})

test('tools that need no grammar are tried within one bound, and those beyond it are free', () => {
  const tools = range(128).map((i) => ({
    ...{ name: `f${i}`, strict: false, at: `tools.${i}` },
    schema: { type: 'object', properties: properties(1000, bounds), additionalProperties: false },
  }))
  const made = deepseekV32Grammar(shape({ tools, choice: 'required' }))
  expect(made.ok && made.value.text.length).toBeLessThan(20_000)
})

const template = (asked: AnswerShape) => templateGrammar(asked, ['</think>', '<tool_call>', '</tool_call>'])
const BIG = properties(90, (i) => ({ const: `held ${i} ${'x'.repeat(60)}` }))
const LOOP = { l: { $ref: '#/$defs/l' } }
const toolOf = (name: string, strict: boolean, schema: object) => ({ name, strict, at: `tools.${name}`, schema })
const bigTools = (strict: boolean) =>
  range(64).map((i) => toolOf(`f${i}`, strict, { type: 'object', properties: BIG, additionalProperties: false }))

// Each of the tools has a grammar, all together have none.
test.each([
  ['deepseek_v32', deepseekV32Grammar],
  ['jinja', template],
])('tools that are not strict are not held to schemas whose grammars are too large together: %s', (_name, grammar) => {
  const one = grammar(shape({ tools: bigTools(false).slice(0, 1), choice: 'required' }))
  expect(one.ok && one.value.text).toContain('held')
  const strict = toolOf('g', true, { type: 'object', properties: { kept: { const: 1 } }, additionalProperties: false })
  const mixed = grammar(shape({ tools: [...bigTools(false), strict], choice: 'required' }))
  const text = mixed.ok ? mixed.value.text : mixed.error.message
  for (const part of ['f0', 'f63', 'kept']) expect(text).toContain(part)
  expect(text).not.toContain('held')
  const message = 'tools.f0: the schema becomes a grammar of over 512 KB.'
  expect(grammar(shape({ tools: bigTools(true), choice: 'required' }))).toMatchObject({ ok: false, error: { message } })
})

test.each([
  ['deepseek_v32', deepseekV32Grammar],
  ['jinja', template],
])('nor to one that no value ends: %s', (_name, grammar) => {
  const endless = { type: 'object', $defs: LOOP, properties: { a: { $ref: '#/$defs/l' } }, required: ['a'] }
  const asked = (strict: boolean) => grammar(shape({ tools: [toolOf('f', strict, endless)], choice: 'required' })).ok
  expect([asked(false), asked(true)]).toEqual([true, false])
})

test('what nests without an end that it knows of is refused, not an exception', () => {
  const deep = properties(20_000, (i) => ({ type: 'array', items: { $ref: `#/$defs/a${i + 1}` } }))
  expect(refusal({ $defs: { ...deep, a20000: {} }, $ref: '#/$defs/a0' })).toBe('schema: the schema goes too deep.')
  const items = range(20_000).map(() => ({ type: 'integer' }))
  expect(refusal({ type: 'array', prefixItems: items })).toBe('schema: the schema goes too deep.')
})

test('a oneOf of a thousand tagged branches has a grammar', () => {
  expect(refusal({ oneOf: range(1000).map(branch) })).toBeUndefined()
})
