// The dialect of OpenAI's Responses: requests translated into prompts, what is refused and how it is named, events and whole answers.
import type OpenAI from 'openai'
import { expect, expectTypeOf, test } from 'vitest'
import type { z } from 'zod'
import type { Delta, ParseContext } from '../../schema/dialects/dialect.ts'
import { openAiChat } from '../../schema/dialects/openai_chat.ts'
import { parseResponsesCount, responses } from '../../schema/dialects/responses.ts'
import { responseEventSchema, responseSchema } from '../../schema/dialects/responses_answer.ts'
import { apiError } from '../../schema/errors.ts'
import { type Run, runSchema } from '../../schema/wire.ts'

const context: ParseContext = { requestId: '019a1b2c-3d4e-7f50-8a6b-0123456789ab', created: 1795450000, seed: '1' }
const parse = (body: object) => responses.parse({ model: 'sparrow-mini', input: 'Hi', ...body }, context)
const runOf = (body: object): Run => {
  const run = parse(body)
  if (!run.ok) throw new Error(run.error.message)
  return runSchema.parse(run.value)
}
const chatRun = (body: object): Run => {
  const run = openAiChat.parse({ model: 'sparrow-mini', ...body }, context)
  if (!run.ok) throw new Error(run.error.message)
  return run.value
}

const parameters = { type: 'object', properties: { a: { type: 'number' } } }
const tool = { type: 'function', name: 'add', description: 'Add.', parameters }

test('items are rendered as the same chat would be', () => {
  const { echo: _, ...run } = runOf({
    instructions: 'Be brief.',
    reasoning: { effort: 'high' },
    tools: [tool],
    input: [
      { role: 'user', content: [{ type: 'input_text', text: 'Add 1 and 2' }] },
      { type: 'reasoning', id: 'rs_1', summary: [], content: [{ type: 'reasoning_text', text: 'I add.' }] },
      {
        type: 'message',
        id: 'm',
        role: 'assistant',
        content: [{ type: 'output_text', text: 'Wait.', annotations: [] }],
      },
      { type: 'function_call', id: 'fc', call_id: 'c1', name: 'add', arguments: '{"a": 1}' },
      { type: 'function_call', call_id: 'c2', name: 'add', arguments: '{"a": 2}' },
      { type: 'function_call_output', call_id: 'c1', output: 'one' },
      { type: 'function_call_output', call_id: 'c2', output: [{ type: 'input_text', text: 'two' }] },
    ],
    ...{ temperature: 0, top_p: 0.5, max_output_tokens: 9, stream: true },
  })
  const call = (a: number) => ({ id: `c${a}`, function: { name: 'add', arguments: `{"a": ${a}}` } })
  const chat = chatRun({
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Add 1 and 2' },
      { role: 'assistant', content: 'Wait.', reasoning_content: 'I add.', tool_calls: [call(1), call(2)] },
      { role: 'tool', tool_call_id: 'c1', content: 'one' },
      { role: 'tool', tool_call_id: 'c2', content: 'two' },
    ],
    tools: [{ type: 'function', function: { name: 'add', description: 'Add.', parameters } }],
    thinking: { type: 'enabled' },
    ...{ temperature: 0, top_p: 0.5, max_tokens: 9, stream: true },
  })
  expect(run).toEqual({ ...chat, dialect: 'openai_responses' })
})

test.each(['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max', null, undefined])(
  'an effort of %s means what it does in a chat, whatever the name stands for',
  (effort) => {
    for (const thinks of [false, true]) {
      const asked = { model: 'deepseek-chat', reasoning: { effort }, input: 'Hi' }
      const run = responses.parse(asked, { ...context, thinks })
      const chat = openAiChat.parse(
        { model: 'deepseek-chat', reasoning_effort: effort, messages: [{ role: 'user', content: 'Hi' }] },
        { ...context, thinks },
      )
      expect(run.ok && chat.ok && [run.value.thinking, run.value.prompt]).toEqual(
        chat.ok && [chat.value.thinking, chat.value.prompt],
      )
      expect(run.ok && JSON.parse(run.value.echo ?? '')).toMatchObject({ reasoning: { effort: effort ?? null } })
    }
  },
)

test('text.format and tool_choice become a grammar', () => {
  const schema = { type: 'object', properties: {}, additionalProperties: false }
  const formats = [{ type: 'json_object' }, { type: 'json_schema', name: 'x', schema, strict: true }]
  for (const format of formats) expect(runOf({ text: { format } }).grammar).toBeDefined()
  for (const tool_choice of ['required', { type: 'function', name: 'add' }])
    expect(runOf({ tools: [tool], tool_choice }).grammar).toBeDefined()
  expect(runOf({ tools: [tool] }).grammar).toBeUndefined()
})

test.each([
  [{ previous_response_id: 'resp_1' }, 'previous_response_id'],
  [{ conversation: 'conv_1' }, 'conversation'],
  [{ background: true }, 'background'],
  [{ prompt: { id: 'p' } }, 'prompt'],
  [{ truncation: 'auto' }, 'truncation'],
  [{ include: ['file_search_call.results'] }, 'include.0'],
  [{ unknown: 1 }, 'unknown'],
  [{ tools: [{ type: 'web_search' }] }, 'tools.0.type'],
  [{ tools: [{ ...tool, strict: true, parameters: { ...parameters, not: {} } }] }, 'tools.0.parameters.not'],
  [{ tools: [tool], tool_choice: { type: 'function', name: 'other' } }, 'tool_choice'],
  [{ reasoning: { summary: 'concise' } }, 'reasoning.summary'],
  [{ input: [{ type: 'item_reference', id: 'x' }] }, 'input.0.type'],
  [{ input: [{ role: 'user', content: [{ type: 'input_image' }] }] }, 'input.0.content.0.type'],
  [{ input: [{ type: 'function_call_output', call_id: 'c', output: 'x' }] }, 'input.0'],
  [{ max_output_tokens: 10 ** 7 }, 'max_output_tokens'],
  [
    { text: { format: { type: 'json_schema', name: 'x', schema: { type: 'object', if: {} } } } },
    'text.format.schema.if',
  ],
])('refused by name: %j', (body, param) => {
  const run = parse(body)
  expect(run.ok ? '' : run.error.param).toBe(param)
  expect(run.ok ? '' : run.error.message).toContain(param)
})

const call = { type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' }
test.each<[object, string, string]>([
  [{ type: 'function_call_output', call_id: 'c', output: [] }, 'input.1.output', 'one or more parts of text'],
  [{ type: 'function_call_output', call_id: 'c', output: { ok: true } }, 'input.1.output', 'must be a string'],
  [{ type: 'function_call_output', output: 'x' }, 'input.1.call_id', 'received undefined'],
  [{ type: 'reasoning', content: 'x' }, 'input.1.content', 'expected array'],
  [{ ...call, arguments: {} }, 'input.1.arguments', 'expected string'],
  [{ ...call, extra: 1 }, 'input.1.extra', 'this field is not supported'],
  [{ type: 'item_reference', id: 'x' }, 'input.1.type', 'must be message, function_call, '],
  [{ type: null, role: 'user', content: 7 }, 'input.1.content', 'must be a string'],
  [{ role: 'user', content: 'x', extra: 1 }, 'input.1.extra', 'this field is not supported'],
])('%j is refused where it is wrong: %s', (item, param, why) => {
  const run = parse({ input: [call, item] })
  expect(run.ok ? '' : run.error.param).toBe(param)
  expect(run.ok ? '' : run.error.message).toMatch(new RegExp(`^${param}: .*${why}`))
})

test('a count has the prompt of the request', () => {
  const counted = parseResponsesCount({ model: 'sparrow-mini', input: 'Hi', tools: [tool] }, context)
  expect(counted.ok && counted.value.prompt).toBe(runOf({ tools: [tool] }).prompt)
})

const usage = { hit: 64, miss: 6, output: 9, reasoning: 3 }
const deltas: Delta[] = [
  { kind: 'reasoning', text: 'I ' },
  { kind: 'reasoning', text: 'add.' },
  { kind: 'content', text: 'We' },
  { kind: 'content', text: 'll', logprobs: [{ bytes: new Uint8Array([108, 108]), logprob: -1, top: [] }] },
  { kind: 'tool_call', index: 0, id: 'call_00_a', name: 'add' },
  { kind: 'tool_arguments', index: 0, text: '{"a": 1}' },
]

const eventsOf = (body: object, finish: 'stop' | 'length' | 'tool_calls') => {
  const formatter = responses.stream(runOf(body))
  const stream =
    formatter.start(usage) + deltas.map((d) => formatter.deltas(0, [d])).join('') + formatter.finish([finish], usage)
  return stream
    .split('\n\n')
    .filter((frame) => frame !== '')
    .map((frame, i) => {
      const [, name, data = ''] = /^event: (\S+)\ndata: (.*)$/.exec(frame) ?? []
      const event = responseEventSchema.parse(JSON.parse(data))
      expect([event.type, event.sequence_number]).toEqual([name, i])
      return event
    })
}

test.each([undefined, 'auto'])('the events of a stream build the whole answer (summary: %s)', (summary) => {
  const body = { reasoning: { effort: 'low', summary }, metadata: { k: 'v' }, tools: [tool] }
  const events = eventsOf(body, 'tool_calls')
  const last = events.at(-1)
  const whole = responseSchema.parse(
    JSON.parse(responses.whole(runOf(body), [{ deltas, finish: 'tool_calls' }], usage)),
  )
  expect(last?.type === 'response.completed' && last.response).toEqual(whole)
  const items = events.flatMap((event) => (event.type === 'response.output_item.done' ? [event.item] : []))
  expect(items).toEqual(whole.output)
  expect(whole.output).toMatchObject([
    summary ? { summary: [{ text: 'I add.' }], content: [] } : { summary: [], content: [{ text: 'I add.' }] },
    { type: 'message', content: [{ text: 'Well', logprobs: [{ token: 'll', logprob: -1 }] }] },
    { type: 'function_call', call_id: 'call_00_a', arguments: '{"a": 1}' },
  ])
  expect(whole).toMatchObject({ store: false, metadata: { k: 'v' }, usage: { input_tokens: 70, total_tokens: 79 } })
  expect(whole.usage?.input_tokens_details.cached_tokens).toBe(64)
})

test('an answer that was cut off is incomplete', () => {
  const last = eventsOf({}, 'length').at(-1)
  expect(last).toMatchObject({
    type: 'response.incomplete',
    response: { status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } },
  })
})

test('an error in mid-stream is an error event', () => {
  const [, data = ''] =
    /^event: error\ndata: (.*)\n\n$/.exec(responses.errorFrame(apiError('stream_interrupted'))) ?? []
  const told = responseEventSchema.parse(JSON.parse(data))
  expect(told).toMatchObject({ type: 'error', code: 'stream_interrupted', error: { type: 'server_error' } })
})

test('what is sent has the types that OpenAI publishes', () => {
  expectTypeOf<z.infer<typeof responseSchema>>().toExtend<Omit<OpenAI.Responses.Response, 'output_text'>>()
  type Bare<E> = E extends { response: unknown }
    ? Omit<E, 'response'> & { response: Omit<OpenAI.Responses.Response, 'output_text'> }
    : E
  // The error event has the `error` object beside OpenAI's own fields; `keepalive` its client knows, and its types do not.
  type Told = Exclude<z.infer<typeof responseEventSchema>, { type: 'error' | 'keepalive' }>
  expectTypeOf<Told>().toExtend<Bare<OpenAI.Responses.ResponseStreamEvent>>()
})
