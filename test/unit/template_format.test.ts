// Checkpoints with a chat template: prompts as the template has them, client text that never becomes a token, answers held to a shape.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Conversation, Message } from '../../schema/chat/chat_format.ts'
import { templateFormat } from '../../schema/chat/template_format.ts'
import { templateName } from '../../schema/chat/template_source.ts'

/** In the manner of ChatML templates with thinking and Hermes calls; our own words. */
const template = `{{- bos_token }}
{%- if tools %}{{- '<|im_start|>tools\\n' }}{% for tool in tools %}{{- tool | tojson + '\\n' }}{% endfor %}{{- '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' and message.content == 'forbidden' %}{{ raise_exception('not that') }}{% endif %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}{{- '<think>' + message.reasoning_content + '</think>' }}{% endif %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% if enable_thinking %}{{- '<think>' }}{% endif %}{% endif %}`

const source = {
  template,
  bos: '<s>',
  eos: '<|im_end|>',
  specials: ['<s>', '<|im_start|>', '<|im_end|>', '<tool_call>', '</tool_call>', '</think>'],
}
const format = templateFormat(source)
const user = (content: string): Message => ({ role: 'user', content })

const render = (conversation: Partial<Conversation>): string => {
  const prompt = format.render({ messages: [user('hi')], tools: [], thinking: false, ...conversation })
  if (!prompt.ok) throw new Error(prompt.error.message)
  return prompt.value
}

test('a conversation as the template writes it', () => {
  const tool = { name: 'f', json: '{"name":"f","parameters":{"type":"object"}}' }
  const messages: Message[] = [
    { role: 'system', content: 'Be brief.' },
    user('hi'),
    { role: 'assistant', content: '', reasoning: 'hm', toolCalls: [{ id: 'c', name: 'f', arguments: '{"a": 1}' }] },
    { role: 'tool', content: '7', toolCallId: 'c' },
  ]
  expect(render({ messages, tools: [tool], thinking: true })).toBe(
    '<s><|im_start|>tools\n{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}\n<|im_end|>\n' +
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>hm</think>' +
      '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call><|im_end|>\n<|im_start|>tool\n7<|im_end|>\n' +
      '<|im_start|>assistant\n<think>',
  )
})

test('a prefix goes behind the prompt, a schema into a system message', () => {
  const prefix: Message = { role: 'assistant', content: 'So', prefix: true }
  expect(render({ messages: [user('hi'), prefix] })).toMatch(/<\|im_start\|>assistant\nSo$/)
  expect(render({ messages: [user('hi'), { ...prefix, reasoning: 'hm' }], thinking: true })).toMatch(
    /assistant\n<think>hm<\/think>So$/,
  )
  expect(render({ responseSchema: '{"type":"integer"}' })).toContain('<|im_start|>system\nAnswer with JSON')
})

test.each<[string, readonly Message[], string]>([
  ['what the template refuses', [user('forbidden')], 'messages'],
  ['an answer as the last message', [user('hi'), { role: 'assistant', content: 'x' }], 'messages.1'],
  [
    'arguments that are no object',
    [user('hi'), { role: 'assistant', content: '', toolCalls: [{ id: 'c', name: 'f', arguments: '[1]' }] }, user('so')],
    'messages.1.tool_calls',
  ],
])('refused: %s', (_, messages, param) => {
  expect(format.render({ messages, tools: [], thinking: false })).toMatchObject({
    ok: false,
    error: { code: 'invalid_request', param },
  })
})

const SPECIAL = /<s>|<\|im_start\|>|<\|im_end\|>|<\/?tool_call>|<\/?think>/g
const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        ...source.specials,
        '<think>',
        '<',
        '|',
        'im_',
        'end|>',
        '<s',
        '>',
        '\u2060',
        '<<s>s>',
        '/think>',
      ),
      fc.string({ unit: 'binary', maxLength: 3 }),
    ),
    { maxLength: 8 },
  )
  .map((parts) => parts.join(''))

test('client text adds no special string, whatever it is and wherever it stands', () => {
  const of = (t: (i: number) => string): string =>
    render({
      thinking: true,
      tools: [{ name: 'f', json: JSON.stringify({ name: 'f', description: t(0), [`k${t(1)}`]: [t(2)] }) }],
      messages: [
        { role: 'system', content: t(3) },
        user(t(4)),
        {
          role: 'assistant',
          content: t(5),
          reasoning: `r${t(6)}`,
          toolCalls: [{ id: t(7), name: 'f', arguments: JSON.stringify({ a: t(8), [`k${t(9)}`]: 1 }) }],
        },
        { role: 'tool', content: t(10), toolCallId: t(7) },
      ],
    })
  const expected = of(() => 'x').match(SPECIAL)
  fc.assert(
    fc.property(fc.array(hostile, { minLength: 11, maxLength: 11 }), (texts) => {
      expect(of((i) => texts[i] ?? '').match(SPECIAL)).toEqual(expected)
    }),
    { numRuns: 300 },
  )
})

test('the name tells templates apart, and fits the wire', () => {
  const name = templateName(source)
  expect(name).toMatch(/^jinja:[0-9a-f]{24}$/)
  expect(format.name).toBe(name)
  expect(templateName({ ...source, template: `${template} ` })).not.toBe(name)
  expect(templateName({ ...source, eos: '<s>' })).not.toBe(name)
})

test('markup of a call is text where no tool may be called', () => {
  const text = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
  const read = (noCalls: boolean) => {
    const parser = format.parser({ thinking: false, stop: [], requestId: 'r', noCalls })
    const deltas = parser.push(text)
    const { toolCalls, deltas: rest } = parser.end()
    return { toolCalls, said: [...deltas, ...rest].map((one) => (one.kind === 'content' ? one.text : '')).join('') }
  }
  expect(read(true)).toEqual({ toolCalls: 0, said: text })
  expect(read(false)).toEqual({ toolCalls: 1, said: '' })
})

const schema = { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'], additionalProperties: false }
const tool = { name: 'f', schema, strict: true, at: 'tools.0.function.parameters' }
const shape = { thinking: false, response: undefined, tools: [tool], choice: 'auto' as const, parallel: true }

test('answers of a demanded shape have a grammar, tags being marks', () => {
  const calls = format.grammar({ ...shape, choice: 'required' })
  expect(calls).toMatchObject({ ok: true, value: { marks: ['</think>', '<tool_call>', '</tool_call>'] } })
  expect(calls.ok && calls.value.text).toContain(String.raw`\u0002`)
  const response = { schema, at: 'response_format.json_schema.schema' }
  expect(format.grammar({ ...shape, tools: [], thinking: true, response }).ok).toBe(true)
  expect(format.grammar({ ...shape, tools: [{ ...tool, schema: { type: 'object', not: {} } }] })).toMatchObject({
    ok: false,
    error: { param: 'tools.0.function.parameters.not' },
  })
  const plain = templateFormat({ ...source, specials: [] })
  expect(plain.grammar(shape)).toMatchObject({ ok: false, error: { code: 'invalid_request' } })
  expect(plain.grammar({ ...shape, choice: 'required' }).ok).toBe(true)
})
