// Parsing answers: the same result wherever the text is split, nothing shown that belongs to the format, nothing lost.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { deepseekV32 } from '../../schema/chat/deepseek_v32.ts'
import type { Delta } from '../../schema/dialects/dialect.ts'

const EOS = '<｜end▁of▁sentence｜>'
const OPEN = '<｜DSML｜function_calls>'
const CLOSE = '</｜DSML｜function_calls>'
const requestId = '019a1b2c-3d4e-7f50-8a6b-0123456789ab'

interface Answer {
  reasoning: string
  content: string
  calls: { id: string; name: string; json: string }[]
  toolCalls: number
}

const parse = (pieces: readonly string[], thinking = false, stop: readonly string[] = [], noCalls = false): Answer => {
  const parser = deepseekV32.parser({ thinking, stop, noCalls, requestId })
  const answer: Answer = { reasoning: '', content: '', calls: [], toolCalls: 0 }
  const take = (deltas: readonly Delta[]): void => {
    for (const delta of deltas) {
      if (delta.kind === 'content' || delta.kind === 'reasoning') {
        if (delta.text === '') throw new Error('an empty delta')
        if (/^[\udc00-\udfff]|[\ud800-\udbff]$/.test(delta.text)) throw new Error('half a surrogate pair')
        answer[delta.kind] += delta.text
      } else if (delta.kind === 'tool_call') answer.calls[delta.index] = { id: delta.id, name: delta.name, json: '' }
      else {
        const call = answer.calls[delta.index]
        if (!call) throw new Error('arguments before their call')
        call.json += delta.text
      }
    }
  }
  for (const piece of pieces) take(parser.push(piece))
  const { deltas, toolCalls } = parser.end()
  take(deltas)
  answer.toolCalls = toolCalls
  return answer
}

const parameter = (key: string, value: string, isString = true): string =>
  `<｜DSML｜parameter name="${key}" string="${isString}">${value}</｜DSML｜parameter>\n`
const invoke = (name: string, ...parameters: string[]): string =>
  `<｜DSML｜invoke name="${name}">\n${parameters.join('')}</｜DSML｜invoke>\n`
const block = (...calls: string[]): string => `\n\n${OPEN}\n${calls.join('')}${CLOSE}`

const none = { reasoning: '', content: '', calls: [], toolCalls: 0 }
const call = (index: number, name: string, json: string) => ({ id: `call_0${index}_0123456789ab`, name, json })
const weather = invoke('weather', parameter('city', 'Praha "1"\n'), parameter('days', '[1, 2.0]', false))
const weatherCall = call(0, 'weather', '{"city": "Praha \\"1\\"\\n", "days": [1, 2.0]}')

/** name, text, thinking, stop strings, expected. */
const CASES: [string, string, boolean, string[], Partial<Answer>][] = [
  ['content', 'Hello.', false, [], { content: 'Hello.' }],
  ['the end mark is never shown, nor what follows it', `Hello.${EOS}junk`, false, [], { content: 'Hello.' }],
  ['reasoning, then content', `a < b</think>Yes.${EOS}`, true, [], { reasoning: 'a < b', content: 'Yes.' }],
  ['reasoning that never ends', 'so and so', true, [], { reasoning: 'so and so' }],
  ['a think tag in content is text', 'use </think> so', false, [], { content: 'use </think> so' }],
  [
    'one call',
    `Let me see.${block(weather)}${EOS}`,
    false,
    [],
    { content: 'Let me see.', calls: [weatherCall], toolCalls: 1 },
  ],
  [
    'two calls, one without parameters',
    block(weather, invoke('now')) + EOS,
    false,
    [],
    { calls: [weatherCall, call(1, 'now', '{}')], toolCalls: 2 },
  ],
  [
    'a call inside unfinished reasoning',
    `I call${block(invoke('now'))}`,
    true,
    [],
    { reasoning: 'I call', calls: [call(0, 'now', '{}')], toolCalls: 1 },
  ],
  [
    'bad JSON becomes a string',
    block(invoke('f', parameter('x', '{oops', false))),
    false,
    [],
    { calls: [call(0, 'f', '{"x": "{oops"}')], toolCalls: 1 },
  ],
  [
    'large integers keep their digits',
    block(invoke('f', parameter('x', '12345678901234567890', false))),
    false,
    [],
    { calls: [call(0, 'f', '{"x": 12345678901234567890}')], toolCalls: 1 },
  ],
  [
    'a call cut short is a call as far as it got',
    `Hm.\n\n${OPEN}\n<｜DSML｜invoke name="f">\n<｜DSML｜par`,
    false,
    [],
    { content: 'Hm.', calls: [call(0, 'f', '{')] },
  ],
  [
    'a call that the end of the answer breaks is content',
    `Hm.\n\n${OPEN}\n<｜DSML｜invoke name="f">\n<｜DSML｜par${EOS}`,
    false,
    [],
    { content: `Hm.\n\n${OPEN}\n<｜DSML｜invoke name="f">\n<｜DSML｜par` },
  ],
  [
    'what no call begins with is content, also where the text breaks off',
    `\n\n${OPEN}\n<｜DSML｜invoke name="f">\nso I`,
    false,
    [],
    { content: `\n\n${OPEN}\n<｜DSML｜invoke name="f">\nso I` },
  ],
  [
    'a second call cut short: the first stands',
    `\n\n${OPEN}\n${invoke('now')}<｜DSML｜invoke name="f">\n<`,
    false,
    [],
    { calls: [call(0, 'now', '{}'), call(1, 'f', '{')], toolCalls: 1 },
  ],
  [
    'cut short between calls',
    `\n\n${OPEN}\n${invoke('now')}`,
    false,
    [],
    { calls: [call(0, 'now', '{}')], toolCalls: 1 },
  ],
  [
    'a parameter given twice breaks the call',
    block(invoke('f', parameter('x', '1'), parameter('x', '2'))),
    false,
    [],
    { content: block(invoke('f', parameter('x', '1'), parameter('x', '2'))) },
  ],
  [
    'prose in a block',
    `\n\n${OPEN}\nI do not know how.${CLOSE}${EOS}`,
    false,
    [],
    { content: `\n\n${OPEN}\nI do not know how.${CLOSE}` },
  ],
  ['an empty block', `A${block()}B`, false, [], { content: `A${block()}B` }],
  [
    'text after a block',
    `${block(invoke('now'))}\n\nDone.`,
    false,
    [],
    { content: 'Done.', calls: [call(0, 'now', '{}')], toolCalls: 1 },
  ],
  [
    'newlines before a block belong to it, two at most',
    `A\n\n\n${OPEN}\n${invoke('now')}${CLOSE}`,
    false,
    [],
    { content: 'A\n', calls: [call(0, 'now', '{}')], toolCalls: 1 },
  ],
  ['newlines that open no block stay', 'A\n\n', false, [], { content: 'A\n\n' }],
  ['a stop string is cut with what follows', 'one\nTwo STOP three', false, ['STOP'], { content: 'one\nTwo ' }],
  ['the stop string that ends first counts', 'xxabcyy', false, ['abc', 'b'], { content: 'xxa' }],
  ['an unfinished stop string is text', 'one ST', false, ['STOP'], { content: 'one ST' }],
  [
    'stop strings do not match inside special strings',
    `think</think>ok${EOS}`,
    true,
    ['/think', '>', 'end'],
    { reasoning: 'think', content: 'ok' },
  ],
  ['a stop string in reasoning ends the answer', 'hm STOP</think>ok', true, ['STOP'], { reasoning: 'hm ' }],
  ['a stop string before a call', `A\n\nB${block(invoke('now'))}`, false, ['\n\n'], { content: 'A' }],
  ['pairs of surrogates', '😀</think>😀😀', true, ['😁'], { reasoning: '😀', content: '😀😀' }],
]

test.each(CASES)('%s', (_, text, thinking, stop, expected) => {
  expect(parse([text], thinking, stop)).toEqual({ ...none, ...expected })
  expect(parse(text.split(''), thinking, stop)).toEqual({ ...none, ...expected })
  for (let at = 0; at <= text.length; at++)
    expect(parse([text.slice(0, at), text.slice(at)], thinking, stop)).toEqual({ ...none, ...expected })
})

test('where no tool may be called, markup of a call is text, in reasoning too, and a cut opening is no secret', () => {
  const text = `Hm.${block(weather, invoke('now'))}`
  const read = (pieces: readonly string[], thinking = false) => parse(pieces, thinking, [], true)
  expect(read([`${text}${EOS}`])).toEqual({ ...none, content: text })
  expect(read([`${text}</think>Yes.`], true)).toEqual({ ...none, reasoning: text, content: 'Yes.' })
  for (let at = 0; at <= text.length; at++) {
    expect(read([text.slice(0, at), text.slice(at)])).toEqual({ ...none, content: text })
    expect(read([text.slice(0, at)])).toEqual({ ...none, content: text.slice(0, at) })
  }
})

const piece = fc.oneof(
  fc.constantFrom(
    EOS,
    '</think>',
    '<think>',
    '｜DSML｜',
    OPEN,
    `\n\n${OPEN}\n`,
    CLOSE,
    '<｜DSML｜invoke name="',
    '</｜DSML｜invoke>',
  ),
  fc.constantFrom(
    invoke('now'),
    weather,
    block(weather),
    parameter('k', 'v'),
    parameter('k', '1', false),
    '<｜DSML｜parameter name="k" ',
  ),
  fc.constantFrom('\n', '\n\n', ' ', '<', '｜', 'D', '>', '"', 'a', 'ab', 'abc', '😀'),
  fc.string({ unit: 'binary', maxLength: 3 }),
)
const cuts = (text: string, at: readonly number[]): string[] => {
  const points = [...new Set(at.map((n) => n % (text.length + 1)))].sort((a, b) => a - b)
  return [0, ...points].map((from, i) => text.slice(from, points[i] ?? text.length))
}

test('any text, split anywhere, parses to the same answer', () => {
  const stops = fc.array(fc.constantFrom('a', 'abc', 'b', '\n\n', '｜', '<', 'now', '😀'), { maxLength: 2 })
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 12 }),
      fc.array(fc.nat(), { maxLength: 12 }),
      fc.boolean(),
      stops,
      (parts, at, thinking, stop) => {
        const text = parts.join('')
        expect(parse(cuts(text, at), thinking, stop)).toEqual(parse([text], thinking, stop))
        expect(parse(text.split(''), thinking, stop)).toEqual(parse([text], thinking, stop))
      },
    ),
    { numRuns: Number(process.env.FUZZ_RUNS ?? 2000) },
  )
})

test('an answer cut off anywhere shows no markup, and of a call what was written of it; both come back as a prompt', () => {
  const text = `Let me see.${block(weather, invoke('now'))}`
  const whole = parse([text])
  const seen = new Set<string>()
  for (let at = 0; at < text.length; at++) {
    const { content, calls } = parse([text.slice(0, at)])
    // Up to its own token an opening may as well be prose.
    expect(text.slice(0, at).startsWith(content) && !content.includes('｜DSML｜')).toBe(true)
    for (const [i, { name, json }] of calls.entries()) {
      expect(name).toBe(whole.calls[i]?.name)
      expect(whole.calls[i]?.json.startsWith(json)).toBe(true)
      seen.add(json)
    }
    const toolCalls = calls.map(({ id, name, json }) => ({ id, name, arguments: json }))
    const messages = [
      { role: 'user' as const, content: 'q' },
      { role: 'assistant' as const, content, toolCalls },
      ...calls.map(({ id }) => ({ role: 'tool' as const, content: 'cut off', toolCallId: id })),
      ...(calls.length > 0 ? [] : [{ role: 'user' as const, content: 'and?' }]),
    ]
    expect(deepseekV32.render({ messages, tools: [], thinking: false }).ok).toBe(true)
  }
  expect([...seen]).toEqual(
    expect.arrayContaining([
      '{',
      '{"city": "Praha \\"',
      '{"city": "Praha \\"1\\"\\n", "days": [1, ',
      whole.calls[0]?.json,
    ]),
  )
})

test('what a client replays renders to what the model wrote', () => {
  const text = `Let me see.${block(weather, invoke('now'))}`
  const { content, calls } = parse([text])
  const messages = [
    { role: 'user' as const, content: 'q' },
    {
      role: 'assistant' as const,
      content,
      toolCalls: calls.map(({ id, name, json }) => ({ id, name, arguments: json })),
    },
    ...calls.map(({ id }) => ({ role: 'tool' as const, content: 'r', toolCallId: id })),
  ]
  const prompt = deepseekV32.render({ messages, tools: [], thinking: false })
  expect(prompt.ok && prompt.value).toContain(`<｜Assistant｜></think>${text}${EOS}`)
})

test('text is shown as soon as it can be nothing else', () => {
  const parser = deepseekV32.parser({ thinking: true, stop: ['STOP'], requestId })
  expect(parser.inReasoning).toBe(true)
  expect(parser.push('so <')).toEqual([{ kind: 'reasoning', text: 'so ' }])
  expect(parser.push('b')).toEqual([{ kind: 'reasoning', text: '<b' }])
  expect(parser.push('</think>S')).toEqual([])
  expect(parser.inReasoning).toBe(false)
  expect(parser.push('o')).toEqual([{ kind: 'content', text: 'So' }])
  expect(parser.push('!\n')).toEqual([{ kind: 'content', text: '!' }])
  expect(parser.end()).toMatchObject({ deltas: [{ kind: 'content', text: '\n' }], toolCalls: 0 })
})

test('a long call costs linear time', () => {
  const parser = deepseekV32.parser({ thinking: false, stop: ['NEVER'], requestId })
  const started = performance.now()
  parser.push(`\n\n${OPEN}\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="x" string="true">`)
  for (let i = 0; i < 100_000; i++) parser.push('some ')
  const [head, json] = parser.push('</｜DSML｜parameter>\n</｜DSML｜invoke>\n')
  expect(head).toMatchObject({ kind: 'tool_call', name: 'f' })
  expect(json).toEqual({ kind: 'tool_arguments', index: 0, text: `{"x": "${'some '.repeat(100_000)}"}` })
  expect(performance.now() - started).toBeLessThan(5_000)
})
