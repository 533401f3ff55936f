// Rendering: what cannot be rendered is named, and no client text ever becomes a special token.
import { readFileSync } from 'node:fs'
import { Tokenizer } from '@huggingface/tokenizers'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Conversation, Message, Tool } from '../../schema/chat/chat_format.ts'
import { deepseekV32, plainText } from '../../schema/chat/deepseek_v32.ts'

const render = (messages: readonly Message[], tools: readonly Tool[] = [], thinking = false): string => {
  const result = deepseekV32.render({ messages, tools, thinking })
  if (!result.ok) throw new Error(result.error.message)
  return result.value
}

const user = (content: string): Message => ({ role: 'user', content })
const call = (id: string, json = '{}') => ({ id, name: 'f', arguments: json })
const assistant = (...toolCalls: ReturnType<typeof call>[]): Message => ({ role: 'assistant', content: '', toolCalls })
const tool = (toolCallId: string): Message => ({ role: 'tool', content: 'r', toolCallId })

test.each<[string, Message[], string]>([
  ['ends with the assistant', [user('a'), { role: 'assistant', content: 'b' }], 'messages.1'],
  ['a result without a call', [user('a'), tool('x')], 'messages.1.tool_call_id'],
  ['a result of another call', [user('a'), assistant(call('x')), tool('y')], 'messages.2.tool_call_id'],
  ['the same call answered twice', [user('a'), assistant(call('x')), tool('x'), tool('x')], 'messages.3.tool_call_id'],
  ['a call without a result', [user('a'), assistant(call('x'), call('y')), tool('x')], 'messages.2'],
  ['a result after the user went on', [user('a'), assistant(call('x')), user('b'), tool('x')], 'messages.1'],
  ['a call without any result', [user('a'), assistant(call('x')), user('b')], 'messages.1'],
  [
    'arguments that are no JSON',
    [user('a'), assistant(call('x', '{oops}')), tool('x')],
    'messages.1.tool_calls.0.function.arguments',
  ],
  [
    'arguments that are no object',
    [user('a'), assistant(call('x'), call('y', '[1]'))],
    'messages.1.tool_calls.1.function.arguments',
  ],
])('refused: %s', (_, messages, param) => {
  expect(deepseekV32.render({ messages, tools: [], thinking: false })).toMatchObject({
    ok: false,
    error: { code: 'invalid_request', param },
  })
})

test.each([
  ['{', []],
  ['{"a": 1, "b": [2, {"c"', ['a']],
  ['{"a": "x, y", "b": 2,', ['a', 'b']],
  // As Vercel's AI SDK sends back what it could not read.
  [JSON.stringify('{"a": 1, "b": "'), ['a']],
])(
  'of arguments that were cut off, as answers with finish_reason "length" have them, what is whole counts: %s',
  (json, names) => {
    const prompt = render([user('a'), assistant(call('x', json)), tool('x')])
    expect([...prompt.matchAll(/parameter name="([^"]+)"/g)].map(([, name]) => name)).toEqual(names)
  },
)

test('the prompt of a conversation is the start of the next one, so that it stays cached', () => {
  const first = [user('one'), assistant(call('x', '{"a":1}'))]
  const second: Message[] = [...first, tool('x'), { role: 'assistant', content: 'done' }]
  const prompts = [first.slice(0, 1), [...first, tool('x')], [...second, user('two')]].map((m) => render(m))
  for (const [i, prompt] of prompts.slice(1).entries()) expect(prompt.startsWith(prompts[i] ?? '?')).toBe(true)
})

const SPECIALS = new RegExp(
  [...deepseekV32.specialStrings, '<｜place▁holder▁no▁7｜>'].map((text) => text.replace(/[|/]/g, '\\$&')).join('|'),
  'g',
)
const specialsOf = (text: string): string[] => text.match(SPECIALS) ?? []

/** Text made to hurt: special strings, their halves, joiners, lone surrogates. */
const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom(...deepseekV32.specialStrings, '<｜place▁holder▁no▁7｜>'),
      fc.constantFrom(
        '<',
        '｜',
        '>',
        '/',
        'think>',
        '<thi',
        'nk>',
        'DSML',
        'DSML｜',
        '｜DS',
        '\u2060',
        '|',
        'EOT|>',
        '"',
      ),
      fc.string({ unit: 'binary', maxLength: 4 }),
      fc.constantFrom('\ud83d', '\ude00', '\n\n'),
    ),
    { maxLength: 8 },
  )
  .map((parts) => parts.join(''))

const conversationOf = (t: (i: number) => string, thinking: boolean): Conversation => ({
  thinking,
  tools: [{ name: 'f', json: JSON.stringify({ name: 'f', description: t(0), [t(1)]: t(2) }) }],
  messages: [
    { role: 'system', content: t(3) },
    { role: 'system', content: t(4) },
    user(t(5)),
    user(t(6)),
    {
      role: 'assistant',
      content: t(7),
      reasoning: t(8),
      toolCalls: [{ id: 'x', name: 'f', arguments: JSON.stringify({ [`k${t(9)}`]: t(10), l: [t(11)] }) }],
    },
    { role: 'tool', content: t(12), toolCallId: 'x' },
  ],
})

test('client text adds no special string, whatever it is and wherever it stands', () => {
  fc.assert(
    fc.property(fc.array(hostile, { minLength: 13, maxLength: 13 }), fc.boolean(), (texts, thinking) => {
      const bland = deepseekV32.render(conversationOf(() => 'x', thinking))
      const prompt = deepseekV32.render(conversationOf((i) => texts[i] ?? '', thinking))
      if (!bland.ok || !prompt.ok) throw new Error('not rendered')
      expect(specialsOf(prompt.value)).toEqual(specialsOf(bland.value))
      expect(prompt.value.isWellFormed()).toBe(true)
    }),
    { numRuns: 500 },
  )
})

const model = new URL('../../gpu-node/model/', import.meta.url)
const tokenizer = new Tokenizer(JSON.parse(readFileSync(new URL('tokenizer.json', model), 'utf8')), {})
const specialIds = new Set(deepseekV32.specialStrings.map((text) => tokenizer.token_to_id(text)))

test('client text never encodes to a special token of the embedded model', () => {
  expect(tokenizer.encode('<think>｜DSML｜', { add_special_tokens: false }).ids.every((id) => specialIds.has(id))).toBe(
    true,
  )
  fc.assert(
    fc.property(hostile, (text) => {
      const { ids } = tokenizer.encode(plainText(text), { add_special_tokens: false })
      expect(ids.filter((id) => specialIds.has(id))).toEqual([])
    }),
    { numRuns: 300 },
  )
})

test('text without special strings stays as it is', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      fc.pre(specialsOf(text).length === 0 && !text.includes('<｜'))
      expect(plainText(text)).toBe(text)
    }),
  )
  expect(plainText('a < b | c ｜ d, <b>bold</b>')).toBe('a < b | c ｜ d, <b>bold</b>')
})
