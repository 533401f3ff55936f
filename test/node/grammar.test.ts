// Grammar threads: masks against the grammar, special tokens as marks, refusals, a thread lost in mid-answer.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type GrammarSession, Grammars } from '../../gpu-node/grammar.ts'
import { loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
import { deepseekV32 } from '../../schema/chat/deepseek_v32.ts'
import { SchemaGrammar } from '../../schema/grammar/json_schema.ts'
import { Rules } from '../../schema/grammar/rules.ts'
import { testSettings } from './fixture.ts'

let tokenizer: Tokenizer
let grammars: Grammars
const EOS = 1
const THINK_END = 6
const DSML = 7

beforeAll(async () => {
  tokenizer = await loadTokenizer(testSettings('http://127.0.0.1:1', '.').SPARROW_MODEL_DIR)
  grammars = new Grammars({ tokenizer, vocabSize: 2080, eosTokenIds: [EOS] })
})
afterAll(() => grammars.close())

const marks = ['｜DSML｜', '</think>']

interface Follower {
  /** The ids allowed behind `ids`. */
  after(ids: readonly number[]): Promise<number[]>
  close(): void
}

const follow = (session: GrammarSession): Follower => {
  const seen = new Map<number, number[]>()
  let wake: () => void = () => {}
  let failure: string | undefined
  session.start(
    (position, words) => {
      const ids = Array.from({ length: 2080 }, (_, id) => id).filter((id) => ((words[id >> 5] ?? 0) >>> (id & 31)) & 1)
      seen.set(position, ids)
      wake()
    },
    (message) => {
      failure = message
      wake()
    },
  )
  let position = 0
  return {
    after: async (ids) => {
      if (ids.length > 0) session.accept(ids)
      position += ids.length
      while (!seen.has(position) && failure === undefined) await new Promise<void>((resolve) => (wake = resolve))
      if (failure !== undefined) throw new Error(failure)
      return seen.get(position) ?? []
    },
    close: () => session.close(),
  }
}

const open = async (text: string): Promise<Follower> => {
  const found = await grammars.open({ text, marks })
  if (!found.ok) throw new Error(found.error.message)
  return follow(found.value)
}

const idsOf = async (text: string): Promise<number[]> => Array.from((await tokenizer.encode(text)).ids)

test('masks follow the grammar, and the end token comes where it may end', async () => {
  const run = await open('root ::= "a" [0-9]{1,2}')
  const text = (ids: readonly number[]) => ids.map((id) => Buffer.from(tokenizer.textBytes[id] ?? []).toString()).sort()
  expect(text(await run.after([])).filter((piece) => !/^a\d{0,2}$/.test(piece))).toEqual([])
  expect(text(await run.after(await idsOf('a')))).toEqual([...'0123456789'])
  expect(await run.after(await idsOf('5'))).toContain(EOS)
  expect(await run.after(await idsOf('7'))).toEqual([EOS])
  run.close()
})

// Handed to the library as they stand, none of these numbers has an end.
const NUMBERS = ['[2-8]\\d', '[1-8]\\d\\d', '[1-8]\\d\\d\\d']
const string = (pattern: string) => ({ type: 'string', pattern })
test.each([
  ['alone', string(`^(${NUMBERS.join('|')})$`), '"'],
  ['without a group', string(NUMBERS.map((number) => `^${number}$`).join('|')), '"'],
  ['before anything', string(`^(${NUMBERS.join('|')})-`), '-'],
  ['before a loop', string(`^(${NUMBERS.join('|')})(-.*)?$`), '"-'],
  ['in a loop', string(`^((${NUMBERS.join('|')})-)+$`), '-'],
  ['beside other counts', string(`^(${NUMBERS.join('|')}|x{10,12})$`), '"'],
  ['as schemas', { anyOf: NUMBERS.map((number) => string(`^${number}$`)) }, '"'],
])('alternatives that begin alike end where each of them ends: %s', async (_name, schema, end) => {
  const rules = new Rules()
  const piece = new SchemaGrammar(rules, schema, 't').value(schema, [])
  const grammar = piece ? rules.write(piece) : { fault: 'none' }
  if (!('text' in grammar)) throw new Error(grammar.fault)
  const run = await open(grammar.text)
  const texts = async (behind: string): Promise<string[]> => {
    const ids = await run.after(await idsOf(behind))
    return ids.map((id) => Buffer.from(tokenizer.textBytes[id] ?? []).toString())
  }
  // One digit a token; with fewer than two of them no number ends.
  const begins = async (behind: string) =>
    [...new Set((await texts(behind)).map((text) => text[0] ?? ''))].sort().join('')
  expect(await begins('"1')).toBe('0123456789')
  expect(await begins('1')).toBe('0123456789')
  expect(await begins('1')).toBe([...end, ...'0123456789'].sort().join(''))
  expect(await begins('1')).toBe([...end].sort().join(''))
  run.close()
})

// Side by side the library reads these as `abbb...` without end, and `aca` as often as one likes.
test.each([[['b', 'ab', 'a', 'bb']], [['cca', 'cc', 'b', 'a', 'bca']], [['b\u00e9\u00f1', 'b', '\u00e9']]])(
  'an enum allows its values and nothing else: %j',
  async (values) => {
    const rules = new Rules()
    const piece = new SchemaGrammar(rules, { enum: values }, 't').value({ enum: values }, [])
    const grammar = piece ? rules.write(piece) : { fault: 'none' }
    if (!('text' in grammar)) throw new Error(grammar.fault)
    const bytes = (id: number) => Buffer.from(tokenizer.textBytes[id] ?? [])
    const single = (id: number) => id === EOS || bytes(id).length === 1
    const found: string[] = []
    const walk = async (ids: number[]): Promise<void> => {
      if (found.length > values.length) return
      const run = await open(grammar.text)
      if (ids.length > 0) await run.after(ids.slice(0, -1))
      const next = (await run.after(ids.slice(-1))).filter(single)
      run.close()
      for (const id of next)
        if (id === EOS) found.push(Buffer.concat(ids.map(bytes)).toString())
        else await walk([...ids, id])
    }
    await walk([])
    expect(found.sort()).toEqual(values.map((value) => JSON.stringify(value)).sort())
  },
)

test('white space of a pattern is ASCII, and no other character passes for it', async () => {
  for (const pattern of ['^\\s$', '^\\s{3,40}$', '^(?:\\s)*x$', '^[\\s\u00e9]+$']) {
    const rules = new Rules()
    const piece = new SchemaGrammar(rules, string(pattern), 't').value(string(pattern), [])
    const grammar = piece ? rules.write(piece) : { fault: 'none' }
    if (!('text' in grammar)) throw new Error(grammar.fault)
    const run = await open(grammar.text)
    const first = (await run.after(await idsOf('"'))).map((id) => tokenizer.textBytes[id]?.[0] ?? 0)
    expect(first).toContain(0x20)
    expect(first.filter((byte) => byte > 0x7f && byte !== 0xc3)).toEqual([])
    run.close()
  }
})

test('what repeats before its like leaves it one', async () => {
  const rules = new Rules()
  const schema = string('^[a-c]*[a-c]d(e*ef)+$')
  const piece = new SchemaGrammar(rules, schema, 't').value(schema, [])
  const grammar = piece ? rules.write(piece) : { fault: 'none' }
  if (!('text' in grammar)) throw new Error(grammar.fault)
  const run = await open(grammar.text)
  const [d, f] = [(await idsOf('d'))[0], (await idsOf('f'))[0]]
  expect(await run.after(await idsOf('"'))).not.toContain(d)
  expect(await run.after(await idsOf('c'))).toContain(d)
  expect(await run.after(await idsOf('d'))).not.toContain(f)
  expect(await run.after(await idsOf('e'))).toContain(f)
  run.close()
})

test('special strings are allowed as marks only, and only as their own token', async () => {
  const run = await open('root ::= [^\\x01\\x02]* "\\x02" "<" "\\x01"')
  const free = await run.after([])
  expect(free).toContain(THINK_END)
  for (const id of [0, EOS, 2, 3, 4, 5, DSML]) expect(free).not.toContain(id)
  const [raw] = await idsOf('\u0002')
  expect(free).not.toContain(raw)
  await run.after([THINK_END])
  expect(await run.after(await idsOf('<'))).toEqual([DSML])
  run.close()
})

test('padding ids of the model are never allowed', async () => {
  const run = await open('root ::= [^\\x01\\x02]*')
  expect((await run.after([])).filter((id) => id >= tokenizer.vocabSize)).toEqual([])
  run.close()
})

test('what is no grammar is refused, and the thread goes on', async () => {
  const bad = await grammars.open({ text: 'root ::= nothing', marks })
  expect(bad).toMatchObject({ ok: false, error: { code: 'invalid_request' } })
  const run = await open('root ::= "x"')
  expect(await run.after(await idsOf('x'))).toEqual([EOS])
})

test('a token outside the grammar fails the session alone', async () => {
  const [good, bad] = [await open('root ::= "ab"'), await open('root ::= "ab"')]
  await expect(bad.after(await idsOf('z'))).rejects.toThrow(/not in the grammar/)
  expect((await good.after(await idsOf('a'))).length).toBeGreaterThan(0)
})

test('a grammar that takes too long is refused; sessions beside it go on where they were', async () => {
  const own = new Grammars({ tokenizer, vocabSize: 2080, eosTokenIds: [EOS], compileMs: 3000 })
  const opened = await own.open({ text: 'root ::= [0-9]*', marks })
  if (!opened.ok) throw new Error(opened.error.message)
  const run = follow(opened.value)
  const before = await run.after(await idsOf('12'))
  // Three levels of counted repetition, which the library writes out: far beyond the time allowed.
  const slow = 'root ::= ((([a-z] | "\\\\" [n]){0,300} "," ){0,300} ";"){0,300}'
  const late = await Promise.all([own.open({ text: slow, marks }), own.open({ text: `${slow} "!"`, marks })])
  for (const result of late) expect(result).toMatchObject({ ok: false, error: { code: 'invalid_request' } })
  expect(await run.after(await idsOf('34'))).toEqual(before)
  await own.close()
})

test('everything the format builds is taken by the library', async () => {
  const schema = {
    type: 'object',
    properties: {
      city: { type: 'string', maxLength: 40 },
      day: { type: 'string', format: 'date' },
      share: { type: 'number', minimum: -0.5, exclusiveMaximum: 99.25 },
      tags: { type: 'array', items: { type: 'string', pattern: '^[a-z]{1,12}$' }, maxItems: 200 },
      any: true,
    },
    required: ['city'],
    additionalProperties: { type: 'integer' },
  }
  const tool = { name: 'find', schema, strict: true, at: 't' }
  for (const thinking of [false, true]) {
    for (const choice of ['auto', 'required', { name: 'find' }] as const) {
      for (const response of [undefined, { schema, at: 'r' }, { schema: undefined, at: 'r' }]) {
        const made = deepseekV32.grammar({ thinking, response, tools: [tool], choice, parallel: choice === 'auto' })
        if (!made.ok) throw new Error(made.error.message)
        const session = await grammars.open(made.value)
        expect(session.ok, JSON.stringify({ thinking, choice })).toBe(true)
        if (session.ok) session.value.close()
      }
    }
  }
})
