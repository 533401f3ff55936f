// Answers of the embedded model held to random schemas, at temperature 1: a model that knows nothing of the schema, so that
// only the masks can have made it right. Judged by another validator (Ajv).
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { Grammars } from '../../gpu-node/grammar.ts'
import { loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
import type { AnswerShape } from '../../schema/chat/chat_format.ts'
import { deepseekV32 } from '../../schema/chat/deepseek_v32.ts'
import { GREEDY } from './engines.ts'
import { MODEL_DIR } from './golden.ts'

let tokenizer: Tokenizer
let engine: NativeEngine
let grammars: Grammars
let prompt: Int32Array

beforeAll(async () => {
  tokenizer = await loadTokenizer(MODEL_DIR)
  engine = await openNativeEngine({ modelDir: MODEL_DIR, tokenBytes: tokenizer.tokenBytes })
  grammars = new Grammars({ tokenizer, ...engine.info })
  const rendered = deepseekV32.render({
    messages: [{ role: 'user', content: 'Tell me a joke.' }],
    tools: [],
    thinking: false,
  })
  if (!rendered.ok) throw new Error(rendered.error.message)
  prompt = (await tokenizer.encode(rendered.value)).ids
})
afterAll(async () => {
  expect(engine.integrity()).toBe('')
  expect(engine.stats()).toMatchObject({ running: 0, waiting: 0, kvPagesUsed: 0 })
  await engine.close()
  await grammars.close()
})

interface Answered {
  readonly text: string
  readonly reason: string
  readonly ids: readonly number[]
}

const FREE: AnswerShape = { thinking: false, response: undefined, tools: [], choice: 'auto', parallel: true }

/** One answer of that shape, as the node makes it. */
const answer = async (shape: AnswerShape, maxTokens: number, seed: bigint, temperature = 1): Promise<Answered> => {
  const made = deepseekV32.grammar(shape)
  if (!made.ok) throw new Error(made.error.message)
  const opened = await grammars.open(made.value)
  if (!opened.ok) throw new Error(`${opened.error.message} ${made.value.text}`)
  const session = opened.value
  const ids: number[] = []
  const reason = await new Promise<string>((resolve, reject) => {
    const spec = { ...GREEDY, tokens: prompt, maxTokens, seed, temperature, masked: true }
    const handle = engine.submit(spec, (events) => {
      for (const event of events) {
        if (event.kind === 'tokens') {
          ids.push(...event.ids)
          session.accept(event.ids)
        } else if (event.kind === 'end') resolve(event.reason)
      }
    })
    session.start((position, words) => handle.mask(position, words), reject)
  })
  session.close()
  const text = Buffer.concat(ids.map((id) => tokenizer.tokenBytes[id] ?? Buffer.of())).toString()
  return { text, reason, ids }
}

const name = fc.constantFrom('a', 'b', 'city', 'é', 'a b', 'x-y', '"q"')
const described = <T extends object>(schema: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.tuple(schema, fc.boolean()).map(([inner, has]) => (has ? { description: 'd', ...inner } : inner))

const { schema: anySchema } = fc.letrec<{ schema: object; leaf: object }>((tie) => ({
  leaf: fc.oneof(
    fc.record(
      { type: fc.constant('string'), minLength: fc.nat(3), maxLength: fc.integer({ min: 3, max: 12 }) },
      { requiredKeys: ['type', 'maxLength'] },
    ),
    fc
      .constantFrom('^[a-z]{2,5}$', '^\\d{3}-[A-Z]+$', '^(?:yes|no)?$', '^"[^"]"$')
      .map((pattern) => ({ type: 'string', pattern })),
    fc.constantFrom('date', 'time', 'date-time', 'email', 'ipv4', 'uuid').map((format) => ({ type: 'string', format })),
    fc.record(
      {
        type: fc.constantFrom('integer', 'number'),
        minimum: fc.integer({ min: -1000, max: 20 }),
        maximum: fc.integer({ min: 21, max: 10_000 }),
        exclusiveMinimum: fc.constantFrom(-0.75, 0, 3.125),
      },
      { requiredKeys: ['type'] },
    ),
    fc
      .uniqueArray(fc.constantFrom('x', 'quote " \\', 7, -1.5, null, true, 'é漢'), { minLength: 1 })
      .map((values) => ({ enum: values })),
    fc.constantFrom({ type: 'boolean' }, { type: 'null' }, { type: ['integer', 'null'] }, { const: { a: [1, 'b'] } }),
  ),
  schema: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    described(tie('leaf')),
    fc
      .record({
        names: fc.uniqueArray(name, { maxLength: 4 }),
        parts: fc.array(tie('schema'), { minLength: 4, maxLength: 4 }),
        needed: fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
        others: fc.option(fc.oneof(fc.constant(false), tie('leaf')), { nil: undefined }),
      })
      .map(({ names, parts, needed, others }) => ({
        type: 'object',
        properties: Object.fromEntries(names.map((key, i) => [key, parts[i]])),
        required: names.filter((_, i) => needed[i]),
        ...(others === undefined ? {} : { additionalProperties: others }),
      })),
    fc
      .record({ items: tie('schema'), minItems: fc.nat(2), maxItems: fc.integer({ min: 2, max: 4 }) })
      .map((rest) => ({ type: 'array', ...rest })),
    fc.array(tie('schema'), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })),
    fc.tuple(tie('leaf'), tie('leaf')).map(([one, two]) => ({ type: 'array', prefixItems: [one, two], items: false })),
  ),
}))

const ajv = new Ajv2020({ strict: false })
addFormats.default(ajv)

test('whatever the schema, an answer that ends by itself is valid', async () => {
  let ended = 0
  await fc.assert(
    fc.asyncProperty(anySchema, fc.bigInt({ min: 0n, max: 1n << 40n }), async (schema, seed) => {
      const { text, reason } = await answer({ ...FREE, response: { schema, at: 's' } }, 600, seed)
      expect(['length', 'stop_token']).toContain(reason)
      if (reason === 'length') return
      ended++
      const validate = ajv.compile(schema)
      if (!validate(JSON.parse(text))) throw new Error(`${text} is not ${JSON.stringify(schema)}`)
    }),
    { numRuns: 60, endOnFailure: true },
  )
  expect(ended).toBeGreaterThan(40)
})

test('integers whose bounds share their first digits have no more digits than the bounds', async () => {
  const schema = { type: 'integer', minimum: 20, maximum: 9104 }
  for (const seed of [1n, 2n, 3n, 4n, 5n, 6n]) {
    const { text, reason } = await answer({ ...FREE, response: { schema, at: 's' } }, 100, seed)
    expect(reason).toBe('stop_token')
    expect(ajv.validate(schema, JSON.parse(text)), text).toBe(true)
  }
})

test('json_object: an object, whole or cut', async () => {
  const answers = await Promise.all(
    Array.from({ length: 8 }, (_, i) => answer({ ...FREE, response: { schema: undefined, at: 's' } }, 400, BigInt(i))),
  )
  for (const { text, reason } of answers) {
    expect(text).toMatch(/^\{/)
    if (reason === 'stop_token') expect(JSON.parse(text)).toBeTypeOf('object')
  }
})

test('cut off by max_tokens: length, and the same beginning as with more', async () => {
  const schema = { type: 'array', items: { type: 'integer', minimum: 10, maximum: 99 }, minItems: 40 }
  const shape: AnswerShape = { ...FREE, response: { schema, at: 's' } }
  const [cut, more] = await Promise.all([answer(shape, 11, 3n), answer(shape, 30, 3n)])
  expect([cut.reason, more.reason]).toEqual(['length', 'length'])
  expect(more.ids.slice(0, 11)).toEqual(cut.ids)
})

test('many at once give what each gives alone', async () => {
  const shape: AnswerShape = { ...FREE, response: { schema: { type: 'string', maxLength: 30 }, at: 's' } }
  const together = await Promise.all(Array.from({ length: 16 }, (_, i) => answer(shape, 60, BigInt(i))))
  for (const [i, one] of together.entries()) expect((await answer(shape, 60, BigInt(i))).ids).toEqual(one.ids)
})

const callsIn = (text: string, thinking: boolean) => {
  const parser = deepseekV32.parser({ thinking, stop: [], requestId: 'test' })
  const deltas = [...parser.push(text), ...parser.end().deltas]
  return deltas.filter((delta) => delta.kind === 'tool_arguments').map((delta) => JSON.parse(delta.text) as unknown)
}

test('forced calls parse, and their arguments are valid', async () => {
  await fc.assert(
    fc.asyncProperty(anySchema, fc.bigInt({ min: 0n, max: 1n << 40n }), async (part, seed) => {
      const schema = {
        type: 'object',
        properties: { which: { type: 'string', maxLength: 8 }, part, kind: { enum: ['raw <text>', 5, 'two\nlines'] } },
        required: ['which', 'kind'],
        additionalProperties: false,
      }
      const shape: AnswerShape = {
        ...FREE,
        tools: [{ name: 'find', schema, strict: true, at: 't' }],
        choice: { name: 'find' },
      }
      const { ids, reason } = await answer(shape, 700, seed)
      if (reason === 'length') return
      const text = Buffer.concat(ids.map((id) => tokenizer.textBytes[id] ?? Buffer.of())).toString()
      const calls = callsIn(text, false)
      expect(calls, text).toHaveLength(1)
      const validate = ajv.compile(schema)
      if (!validate(calls[0])) throw new Error(`${JSON.stringify(calls[0])} is not ${JSON.stringify(schema)}`)
    }),
    { numRuns: 30, endOnFailure: true },
  )
})
