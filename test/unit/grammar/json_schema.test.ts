// Schemas as grammars: what they take and what not, judged by a recognizer of the test's own; and every refusal by name.
import { expect, test } from 'vitest'
import { deepseekV32Grammar } from '../../../schema/chat/deepseek_v32_grammar.ts'
import { SchemaGrammar } from '../../../schema/grammar/json_schema.ts'
import { Rules } from '../../../schema/grammar/rules.ts'
import { accepts } from './recognizer.ts'

const judge = (schema: unknown): ((value: unknown) => boolean) => {
  const rules = new Rules()
  const piece = new SchemaGrammar(rules, schema, 's').value(schema, [])
  return (value) => {
    const text = typeof value === 'string' && value.startsWith('=') ? value.slice(1) : JSON.stringify(value)
    return piece !== undefined && accepts(rules, piece, text)
  }
}

const object = (properties: object, extra: object = {}) => ({ type: 'object', properties, ...extra })

const CASES: readonly (readonly [string, unknown, readonly unknown[], readonly unknown[]])[] = [
  ['types', { type: ['integer', 'null'] }, [3, -12, null], ['x', 1.5, true]],
  ['any value', true, [1, 'x', null, [1, { a: [] }], { a: 1, b: {} }, -1.5e10], ['={a:1}', '=[1,]', '=01']],
  ['enum and const', { enum: ['a', 1, { b: [2] }] }, ['a', 1, { b: [2] }], ['b', 2]],
  [
    'enum of values that begin alike',
    { enum: ['ab', 'a', '', 'abc', '\u{1f600}', '\u{1f601}x', 1, 12, 1.5, [1], [1, 2]] },
    ['ab', 'a', '', 'abc', '\u{1f600}', '\u{1f601}x', 1, 12, 1.5, [1], [1, 2]],
    ['b', 'abcc', '\u{1f601}', 2, 1.2, [2], [1, 2, 2]],
  ],
  ['enum of a type', { type: 'string', enum: ['a', 1] }, ['a'], [1]],
  [
    'order and optionals',
    object({ a: { const: 1 }, b: { const: 2 }, c: { const: 3 } }, { required: ['b'] }),
    [{ b: 2 }, { a: 1, b: 2, c: 3 }, { b: 2, c: 3 }, '={ "b": 2,\n  "c": 3\n}'],
    [{}, { a: 1 }, { a: 1, c: 3 }, '={,"b":2}', { b: 2, d: 4 }],
  ],
  [
    'others',
    object({ a: { const: 1 } }, { additionalProperties: { type: 'null' } }),
    [{}, { a: 1, z: null }, { z: null }],
    [{ z: 1 }, '={"a":null}'],
  ],
  ['required but undeclared', object({}, { required: ['q'] }), [{ q: [1] }], [{}]],
  ['a name that is required twice', object({}, { required: ['q', 'q'] }), [{ q: 1 }], ['={"q":1,"q":1}']],
  ['map', { type: 'object', additionalProperties: { type: 'boolean' } }, [{}, { x: true, y: false }], [{ x: 1 }]],
  [
    'list',
    { type: 'array', items: { enum: [1, 2] }, minItems: 1, maxItems: 3 },
    [[1], [1, 2, 1]],
    [[], [3], [1, 1, 1, 1]],
  ],
  [
    'tuple',
    { type: 'array', prefixItems: [{ const: 1 }, { const: 2 }], items: false },
    [[], [1], [1, 2]],
    [[2], [1, 2, 3]],
  ],
  [
    'tuple and rest',
    { prefixItems: [{ const: 1 }], items: { const: 0 }, minItems: 2 },
    [
      [1, 0],
      [1, 0, 0],
    ],
    [[1], [0, 0]],
  ],
  [
    'anyOf',
    {
      anyOf: [
        { type: 'string', maxLength: 2 },
        { type: 'integer', minimum: 5 },
      ],
    },
    ['ab', 7],
    ['abc', 4],
  ],
  ['a branch that takes everything, of a type', { type: 'object', anyOf: [true, false] }, [{}, { a: [1] }], [1, 'x']],
  [
    'oneOf by constant',
    { oneOf: [object({ k: { const: 'a' } }, { required: ['k'] }), object({ k: { const: 'b' } }, { required: ['k'] })] },
    [{ k: 'a' }, { k: 'b' }],
    [{ k: 'c' }],
  ],
  [
    'recursion',
    { $defs: { tree: object({ kids: { type: 'array', items: { $ref: '#/$defs/tree' } } }) }, $ref: '#/$defs/tree' },
    [{}, { kids: [{}, { kids: [] }] }],
    [{ kids: [1] }],
  ],
  [
    'a format beside a pattern is an annotation (Zod writes both)',
    { type: 'string', format: 'date', pattern: '^\\d{2}$' },
    ['26'],
    ['2026-11-29'],
  ],
  ['an unknown one too', { type: 'string', format: 'cuid2', pattern: '^[0-9a-z]+$' }, ['a1'], ['A']],
  [
    'names that may be any string',
    { type: 'object', propertyNames: { type: 'string' }, additionalProperties: { type: 'null' } },
    [{ x: null }],
    [{ x: 1 }],
  ],
  ['allOf of one', { allOf: [{ type: 'boolean' }], description: 'd' }, [true], [1]],
]

test.each(CASES)('%s', (_, schema, right, wrong) => {
  const takes = judge(schema)
  for (const value of right) expect(takes(value), JSON.stringify(value)).toBe(true)
  for (const value of wrong) expect(takes(value), JSON.stringify(value)).toBe(false)
})

const REFUSED: readonly (readonly [unknown, string, string])[] = [
  [{ not: {} }, 'not', 'is not supported'],
  [object({ a: { type: 'string', pattern: '(?=x)' } }), 'properties.a.pattern', 'look-ahead'],
  [object({ a: { type: 'string', pattern: '(?i)x' } }), 'properties.a.pattern', 'is not supported with syntax that'],
  [object({ a: { type: 'array', uniqueItems: true } }), 'properties.a.uniqueItems', 'is not supported'],
  [object({ a: { type: 'number', multipleOf: 0.1 } }), 'properties.a.multipleOf', 'is not supported'],
  [object({ a: { format: 'iri' } }), 'properties.a.format', 'date-time'],
  [{ $ref: '#/$defs/x' }, '$ref', 'points to nothing'],
  [{ $ref: '#/%' }, '$ref', 'points to nothing'],
  [{ $ref: 'other.json' }, '$ref', 'same schema'],
  [{ $defs: { x: { if: {} } }, $ref: '#/$defs/x' }, '$defs.x.if', 'is not supported'],
  [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, 'oneOf', 'differ'],
  [{ allOf: [{}, {}] }, 'allOf', 'one schema'],
  [{ type: 'text' }, 'type', 'no type'],
  [{ type: 'string', minLength: -1 }, 'minLength', 'whole number'],
  [{ type: 'string', minLength: 2, pattern: 'a' }, 'minLength', 'beside pattern'],
  [object({ a: { const: 2 ** 63 } }), 'properties.a.const', '2^53'],
  [{ enum: [1, { a: [2 ** 53] }] }, 'enum', '2^53'],
  [{ const: Number.POSITIVE_INFINITY }, 'const', '2^53'],
  [{ propertyNames: { pattern: 'x' } }, 'propertyNames', 'is not supported'],
  [{ enum: ['a'], minLength: 1 }, 'minLength', 'beside enum'],
  [object({ a: 5 }), 'properties.a', 'must be a schema'],
  [object({ a: false }, { required: ['a'] }), '', 'fits no value'],
  [{ $ref: '#' }, '', 'circle'],
  [object({ a: { $ref: '#' } }, { required: ['a'] }), '', 'circle'],
]

test.each(REFUSED)('%j is refused by name', (schema, path, why) => {
  const asked = {
    thinking: false,
    response: { schema, at: 'schema' },
    tools: [],
    choice: 'auto',
    parallel: true,
  } as const
  const found = deepseekV32Grammar(asked)
  expect(found.ok).toBe(false)
  if (found.ok) return
  expect(found.error.code).toBe('invalid_request')
  expect(found.error.param).toBe(path === '' ? 'schema' : `schema.${path}`)
  expect(found.error.message).toContain(why)
})

test('a schema nested too deep or grown too large is refused, not a crash', () => {
  let deep: unknown = true
  for (let i = 0; i < 5000; i++) deep = { type: 'array', items: deep }
  const wide = object(Object.fromEntries(Array.from({ length: 8000 }, (_, i) => [`property ${i}`, { type: 'string' }])))
  for (const schema of [deep, wide]) {
    const asked = { thinking: false, response: { schema, at: 's' }, tools: [], choice: 'auto', parallel: true } as const
    expect(deepseekV32Grammar(asked).ok).toBe(false)
  }
})
