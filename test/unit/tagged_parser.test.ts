// Answers with think and tool_call tags, and raw ones: the same result wherever the text is split, nothing lost.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { rawParser, taggedParser } from '../../schema/chat/tagged_parser.ts'
import type { Delta } from '../../schema/dialects/dialect.ts'

const EOS = '<|im_end|>'
const requestId = '019a1b2c-3d4e-7f50-8a6b-0123456789ab'

interface Answer {
  reasoning: string
  content: string
  calls: { id: string; name: string; json: string }[]
  toolCalls: number
  stop?: string | undefined
}
interface Options {
  readonly thinking?: boolean
  readonly stop?: readonly string[]
  readonly raw?: boolean
}

const parse = (pieces: readonly string[], { thinking = false, stop = [], raw = false }: Options = {}): Answer => {
  const options = { thinking, stop, requestId, ends: [EOS], withSource: true }
  const parser = raw ? rawParser(options) : taggedParser(options, { think: true, calls: true })
  const whole = pieces.join('')
  const answer: Answer = { reasoning: '', content: '', calls: [], toolCalls: 0 }
  const take = (deltas: readonly Delta[]): void => {
    for (const delta of deltas) {
      if (delta.kind === 'content' || delta.kind === 'reasoning') {
        expect(delta.text).not.toBe('')
        expect(delta.text).not.toMatch(/^[\udc00-\udfff]|[\ud800-\udbff]$/)
        if (stop.length === 0 && answer.content === '' && answer.calls.length === 0)
          expect(whole.slice(...(delta.source ?? [0, 0]))).toContain(delta.text.at(-1))
        answer[delta.kind] += delta.text
      } else if (delta.kind === 'tool_call') answer.calls[delta.index] = { id: delta.id, name: delta.name, json: '' }
      else (answer.calls[delta.index] as { json: string }).json += delta.text
    }
  }
  for (const piece of pieces) take(parser.push(piece))
  const { deltas, toolCalls, stop: cut } = parser.end()
  take(deltas)
  answer.toolCalls = toolCalls
  if (cut !== undefined) answer.stop = cut
  return answer
}

const none: Answer = { reasoning: '', content: '', calls: [], toolCalls: 0 }
const call = (index: number, name: string, json: string) => ({ id: `call_0${index}_0123456789ab`, name, json })
const weather =
  '<tool_call>\n{"name": "weather", "arguments": {"city": "Praha", "days": 12345678901234567890}}\n</tool_call>'
const weatherCall = call(0, 'weather', '{"city": "Praha", "days": 12345678901234567890}')

const CASES: [string, string, Options, Partial<Answer>][] = [
  ['content', `Hello.${EOS}junk`, {}, { content: 'Hello.' }],
  ['reasoning the model opens', '<think>\nso\n</think>\n\nYes.', {}, { reasoning: 'so', content: 'Yes.' }],
  ['white space before it', '\n <think>so</think>Yes.', {}, { reasoning: 'so', content: 'Yes.' }],
  [
    'reasoning the prompt opened',
    '\nso < it\n</think>\n\nYes.',
    { thinking: true },
    { reasoning: 'so < it', content: 'Yes.' },
  ],
  ['reasoning cut short', 'so and\n', { thinking: true }, { reasoning: 'so and\n' }],
  ['white space that opens nothing stays', '\n\nYes.', {}, { content: '\n\nYes.' }],
  ['a think tag in content is text', 'use <think> so', {}, { content: 'use <think> so' }],
  ['one call', `Let me see.\n\n${weather}${EOS}`, {}, { content: 'Let me see.', calls: [weatherCall], toolCalls: 1 }],
  [
    'two calls, arguments as a string',
    `${weather}\n<tool_call>{"arguments":"{\\"a\\":1}","name":"f"}</tool_call>`,
    {},
    { calls: [weatherCall, call(1, 'f', '{"a":1}')], toolCalls: 2 },
  ],
  ['no arguments', '<tool_call>{"name":"now"}</tool_call>', {}, { calls: [call(0, 'now', '{}')], toolCalls: 1 }],
  [
    'a call inside reasoning',
    `hm\n${weather}`,
    { thinking: true },
    { reasoning: 'hm', calls: [weatherCall], toolCalls: 1 },
  ],
  ['no JSON', 'A\n<tool_call>oops</tool_call>B', {}, { content: 'A\n<tool_call>oops</tool_call>B' }],
  [
    'arguments that are no object',
    '<tool_call>{"name":"f","arguments":[1]}</tool_call>',
    {},
    { content: '<tool_call>{"name":"f","arguments":[1]}</tool_call>' },
  ],
  ['a call cut short', `A\n<tool_call>{"name":${EOS}x`, {}, { content: 'A\n<tool_call>{"name":' }],
  [
    'a call cut short by the limit',
    'A\n<tool_call>\n{"name": "f", "arguments": {"a": [1, "b',
    {},
    { content: 'A', calls: [call(0, 'f', '{"a": [1, "b')] },
  ],
  [
    'cut short behind its arguments',
    '<tool_call>{"name": "f", "arguments": {"a": 1}}\n</tool',
    {},
    { calls: [call(0, 'f', '{"a": 1}')] },
  ],
  ['cut short before its arguments', '<tool_call>{"name": "f", "argu', {}, { calls: [call(0, 'f', '{')] }],
  ['cut short in its name', 'A<tool_call>{"name": "f', {}, { content: 'A' }],
  ['what no call begins with', '<tool_call>oops', {}, { content: '<tool_call>oops' }],
  ['text after a call', `${weather}\n\nDone.`, {}, { content: 'Done.', calls: [weatherCall], toolCalls: 1 }],
  ['a stop string', 'one STOP two', { stop: ['STOP'] }, { content: 'one ', stop: 'STOP' }],
  [
    'raw text keeps every tag',
    `\n<think>a</think>\n${weather}${EOS}b`,
    { raw: true },
    { content: `\n<think>a</think>\n${weather}` },
  ],
  ['surrogates', '😀</think>😀😀', { thinking: true, stop: ['😁'] }, { reasoning: '😀', content: '😀😀' }],
]

test.each(CASES)('%s', (_, text, options, expected) => {
  for (let at = 0; at <= text.length; at++)
    expect(parse([text.slice(0, at), text.slice(at)], options)).toEqual({ ...none, ...expected })
  expect(parse(text.split(''), options)).toEqual({ ...none, ...expected })
})

const piece = fc.oneof(
  fc.constantFrom(EOS, '<think>', '</think>', '<tool_call>', '</tool_call>', weather, '{"name":"f"}', '"', '{', '}'),
  fc.constantFrom('\n', '\n\n', ' ', '<', '>', 'a', 'ab', '😀', '<tool_', '</thi'),
  fc.string({ unit: 'binary', maxLength: 3 }),
)

test('any text, split anywhere, parses to the same answer', () => {
  const stops = fc.array(fc.constantFrom('a', 'b', '\n\n', '<', 'name', '😀'), { maxLength: 2 })
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 12 }),
      fc.array(fc.nat(), { maxLength: 8 }),
      fc
        .record({ thinking: fc.boolean(), raw: fc.boolean(), stop: stops })
        .map((o) => ({ ...o, thinking: o.thinking && !o.raw })),
      (parts, at, options) => {
        const text = parts.join('')
        const points = [...new Set(at.map((n) => n % (text.length + 1)))].sort((a, b) => a - b)
        const pieces = [0, ...points].map((from, i) => text.slice(from, points[i] ?? text.length))
        const whole = parse([text], options)
        expect(parse(pieces, options)).toEqual(whole)
        expect(parse(text.split(''), options)).toEqual(whole)
        if (options.raw && options.stop.length === 0) expect(whole.content).toBe(text.split(EOS)[0])
      },
    ),
    { numRuns: Number(process.env.FUZZ_RUNS ?? 2000) },
  )
})
