// Anthropic's dialect: requests translated into prompts, what is refused and how it is named, bytes of answers, errors.
import type { Message, MessageStreamEvent } from '@anthropic-ai/sdk/resources/messages'
import { expect, expectTypeOf, test } from 'vitest'
import type { z } from 'zod'
import { anthropic, parseAnthropicCount } from '../../schema/dialects/anthropic.ts'
import {
  anthropicErrorSchema,
  anthropicEventSchema,
  anthropicMessageSchema,
} from '../../schema/dialects/anthropic_answer.ts'
import type { Delta, ParseContext } from '../../schema/dialects/dialect.ts'
import { openAiChat } from '../../schema/dialects/openai_chat.ts'
import { apiError } from '../../schema/errors.ts'
import type { Run } from '../../schema/wire.ts'

const context: ParseContext = { requestId: '019a1b2c-3d4e-7f50-8a6b-0123456789ab', created: 1795450000, seed: '1' }
const base = { model: 'sparrow-mini', max_tokens: 10, messages: [{ role: 'user', content: 'Hi' }] }

const runOf = (body: object): Run => {
  const run = anthropic.parse({ ...base, ...body }, context)
  if (!run.ok) throw new Error(run.error.message)
  return run.value
}
const chatRun = (body: object): Run => {
  const run = openAiChat.parse({ model: 'sparrow-mini', ...body }, context)
  if (!run.ok) throw new Error(run.error.message)
  return run.value
}
const refusal = (body: object): { param?: string; message?: string; code?: string } => {
  const run = anthropic.parse({ ...base, ...body }, context)
  return run.ok ? {} : run.error
}

const tool = {
  name: 'add',
  description: 'Add.',
  input_schema: { type: 'object', 2: {}, properties: { a: { type: 'number' } } },
}

test('a conversation is rendered as the same chat would be', () => {
  const run = runOf({
    system: [{ type: 'text', text: 'Be brief.', cache_control: { type: 'ephemeral' } }],
    thinking: { type: 'enabled', budget_tokens: 1024 },
    tools: [tool],
    messages: [
      { role: 'user', content: 'Add 1 and 2' },
      { role: 'user', content: [{ type: 'text', text: 'please' }] },
      {
        role: 'assistant',
        content: [
          { type: 'thinking', thinking: 'I add.', signature: 'x' },
          { type: 'text', text: 'Wait.', citations: null },
          { type: 'tool_use', id: 't1', name: 'add', input: { a: 1 }, caller: { type: 'direct' } },
          { type: 'tool_use', id: 't2', name: 'add', input: { a: 2 } },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 't2', content: [{ type: 'text', text: 'two' }] },
          { type: 'tool_result', tool_use_id: 't1', content: 'one', is_error: true },
        ],
      },
    ],
    ...{ stop_sequences: ['END'], temperature: 0, top_p: 0.5, top_k: 3, stream: true },
  })
  const parameters = tool.input_schema
  const chat = chatRun({
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Add 1 and 2\nplease' },
      {
        role: 'assistant',
        content: 'Wait.',
        reasoning_content: 'I add.',
        tool_calls: [1, 2].map((a) => ({ id: `t${a}`, function: { name: 'add', arguments: JSON.stringify({ a }) } })),
      },
      { role: 'tool', tool_call_id: 't1', content: 'Error: one' },
      { role: 'tool', tool_call_id: 't2', content: 'two' },
    ],
    tools: [{ type: 'function', function: { name: 'add', description: 'Add.', parameters } }],
    thinking: { type: 'enabled' },
    ...{ stop: ['END'], temperature: 0, top_p: 0.5, top_k: 3, stream: true, max_tokens: 10 },
  })
  expect(run).toEqual({ ...chat, dialect: 'anthropic_messages' })
  expect(run.prompt).toContain('I add.')
})

test('schemas keep the key order that the client wrote', () => {
  const bodyText = JSON.stringify({ ...base, tools: [tool] }).replace(
    '{"2":{},"type":"object"',
    '{"type":"object","2":{}',
  )
  const run = anthropic.parse(JSON.parse(bodyText), { ...context, bodyText })
  expect(run.ok && run.value.prompt).toContain('"parameters": {"type": "object", "2": {}')
})

test('tool_choice and structured output become a grammar', () => {
  expect(runOf({ tools: [tool] }).grammar).toBeUndefined()
  for (const tool_choice of [
    { type: 'any' },
    { type: 'tool', name: 'add' },
    { type: 'auto', disable_parallel_tool_use: true },
  ])
    expect(runOf({ tools: [tool], tool_choice }).grammar).toBeDefined()
  expect(runOf({ tools: [tool], tool_choice: { type: 'none' } }).prompt).not.toContain('Add.')
  const schema = { type: 'object', properties: {}, additionalProperties: false }
  expect(runOf({ output_config: { format: { type: 'json_schema', schema } } }).grammar).toBeDefined()
})

test('a conversation that ends in calls is told what it lacks, in words of its dialect', () => {
  const call = { type: 'tool_use', id: 't', name: 'add', input: {} }
  const { param, message } = refusal({ messages: [...base.messages, { role: 'assistant', content: [call] }] })
  expect([param, message]).toEqual(['messages.1', 'messages.1: must be followed by a result for each tool call.'])
})

test.each([
  [{ max_tokens: undefined }, 'max_tokens'],
  [{ max_tokens: 10 ** 7 }, 'max_tokens'],
  [{ mcp_servers: [{ url: 'x' }] }, 'mcp_servers'],
  [{ container: 'x' }, 'container'],
  [{ context_management: {} }, 'context_management'],
  [{ tools: [{ type: 'web_search_20250305', name: 'web_search' }] }, 'tools.0.type'],
  [{ tools: [{ ...tool, defer_loading: true }] }, 'tools.0.defer_loading'],
  [{ tools: [{ ...tool, allowed_callers: ['direct', 'code_execution_20260120'] }] }, 'tools.0.allowed_callers.1'],
  [{ tools: [{ ...tool, input_examples: [{ a: 1 }] }] }, 'tools.0.input_examples'],
  [
    { tools: [{ ...tool, strict: true, input_schema: { type: 'object', properties: {}, not: {} } }] },
    'tools.0.input_schema.not',
  ],
  [{ tools: [tool], tool_choice: { type: 'tool', name: 'other' } }, 'tool_choice'],
  [{ thinking: { type: 'enabled', display: 'omitted' } }, 'thinking.display'],
  [{ messages: [{ role: 'system', content: 'x' }] }, 'messages.0.role'],
  [{ messages: [{ role: 'user', content: [{ type: 'image', source: {} }] }] }, 'messages.0.content.0.type'],
  [{ messages: [{ role: 'user', content: [{ type: 'tool_result', tool_use_id: 'x' }] }] }, 'messages.0.content.0'],
  [{ stop_sequences: [''] }, 'stop_sequences.0'],
  [
    { output_config: { format: { type: 'json_schema', schema: { type: 'object', if: {} } } } },
    'output_config.format.schema.if',
  ],
])('refused by name: %j', (body, param) => {
  const error = refusal(body)
  expect(error.param).toBe(param)
  expect(error.message).toContain(param)
})

test('a count needs no max_tokens and has the prompt of the request', () => {
  const { max_tokens: _, ...body } = { ...base, tools: [tool] }
  const counted = parseAnthropicCount(body, context)
  expect(counted.ok && counted.value.prompt).toBe(runOf({ tools: [tool] }).prompt)
})

const usage = { hit: 64, miss: 6, output: 9, reasoning: 3 }
const deltas: Delta[] = [
  { kind: 'reasoning', text: 'I ' },
  { kind: 'reasoning', text: 'add.' },
  { kind: 'content', text: 'Well:' },
  { kind: 'tool_call', index: 0, id: 'call_00_a', name: 'add' },
  { kind: 'tool_arguments', index: 0, text: '{"a": 1}' },
  { kind: 'tool_call', index: 1, id: 'call_01_a', name: 'add' },
  { kind: 'tool_arguments', index: 1, text: '{"a": 2}' },
]

const eventsOf = (stream: string) =>
  stream
    .split('\n\n')
    .filter((frame) => frame !== '')
    .map((frame) => {
      const [, name, data = ''] = /^event: (\w+)\ndata: (.*)$/.exec(frame) ?? []
      const event = anthropicEventSchema.parse(JSON.parse(data))
      expect(event.type).toBe(name)
      return event
    })

test('a stream builds the blocks of the whole answer', () => {
  const formatter = anthropic.stream(runOf({}))
  const stream =
    formatter.start({ ...usage, output: 0, reasoning: 0 }) +
    deltas.map((delta) => formatter.deltas(0, [delta])).join('') +
    formatter.finish(['tool_calls'], usage)
  const events = eventsOf(stream)
  expect(events.map((event) => event.type).join(' ')).toBe(
    [
      'message_start ping content_block_start content_block_delta content_block_delta content_block_delta content_block_stop',
      'content_block_start content_block_delta content_block_stop',
      'content_block_start content_block_delta content_block_stop content_block_start content_block_delta content_block_stop',
      'message_delta message_stop',
    ].join(' '),
  )
  expect(events[0]).toMatchObject({ message: { usage: { input_tokens: 6, cache_read_input_tokens: 64 } } })
  expect(events.at(-2)).toMatchObject({ delta: { stop_reason: 'tool_use' }, usage: { output_tokens: 9 } })
  const whole = anthropicMessageSchema.parse(
    JSON.parse(anthropic.whole(runOf({}), [{ deltas, finish: 'tool_calls' }], usage)),
  )
  expect(whole.content).toMatchObject([
    { type: 'thinking', thinking: 'I add.' },
    { type: 'text', text: 'Well:' },
    { type: 'tool_use', id: 'call_00_a', input: { a: 1 } },
    { type: 'tool_use', id: 'call_01_a', input: { a: 2 } },
  ])
  const signed = events.find((event) => event.type === 'content_block_delta' && event.delta.type === 'signature_delta')
  expect(signed).toMatchObject({
    delta: { signature: whole.content[0]?.type === 'thinking' && whole.content[0].signature },
  })
})

test('a stop string is named', () => {
  const finish = { deltas: [{ kind: 'content', text: 'a' } as const], finish: 'stop' as const, stop: 'END' }
  const whole: unknown = JSON.parse(anthropic.whole(runOf({}), [finish], usage))
  expect(whole).toMatchObject({ stop_reason: 'stop_sequence', stop_sequence: 'END' })
  expect(anthropic.stream(runOf({})).finish(['stop'], usage, ['END'])).toContain('"stop_sequence":"END"')
})

test('errors have the form and the statuses of Anthropic', () => {
  const of = (code: Parameters<typeof apiError>[0]) => ({
    ...anthropicErrorSchema.parse(JSON.parse(anthropic.errorBody(apiError(code)))).error,
    status: anthropic.status?.(code),
  })
  expect(of('invalid_parameter')).toMatchObject({ type: 'invalid_request_error', status: 400 })
  expect(of('context_length_exceeded')).toMatchObject({ type: 'invalid_request_error', status: 400 })
  expect(of('insufficient_balance')).toMatchObject({ type: 'billing_error', status: 402 })
  expect(of('no_node')).toMatchObject({ type: 'overloaded_error', status: 529 })
  expect(of('stream_interrupted')).toMatchObject({ type: 'api_error', status: 502 })
  expect(anthropic.errorFrame(apiError('stream_interrupted'))).toMatch(
    /^event: error\ndata: \{"type":"error",.*\}\n\n$/,
  )
})

test('what is sent has the types that Anthropic publishes', () => {
  expectTypeOf<z.infer<typeof anthropicMessageSchema>>().toExtend<Message>()
  // Pings and errors are the SDK's own affair: it has no type for them.
  type Told = Exclude<z.infer<typeof anthropicEventSchema>, { type: 'ping' | 'error' }>
  expectTypeOf<Told>().toExtend<MessageStreamEvent>()
})

test('numbers of a call are what was written, in the history and in the answer', () => {
  const input = '{"z": 12345678901234567891, "1": 1.10}'
  const bodyText = `{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[
    {"type":"text","text":"b"},{"type":"tool_use","id":"t","name":"f","input":${input}}]},
    {"role":"user","content":[{"type":"tool_result","tool_use_id":"t"}]}]}`
  const run = anthropic.parse(JSON.parse(bodyText), { ...context, bodyText })
  if (!run.ok) throw new Error(run.error.message)
  expect(run.value.prompt).toMatch(/"z".*12345678901234567891[\s\S]*"1".*1\.10/)
  const deltas: Delta[] = [
    { kind: 'tool_call', index: 0, id: 'c', name: 'f' },
    { kind: 'tool_arguments', index: 0, text: input },
  ]
  const whole = anthropic.whole(run.value, [{ deltas, finish: 'tool_calls' }], {
    hit: 0,
    miss: 1,
    output: 1,
    reasoning: 0,
  })
  expect(whole).toContain(`"input":${input}`)
  anthropicMessageSchema.parse(JSON.parse(whole))
})

test('of a call that was cut off a whole answer has what is whole of its input; a stream has it as it was written', () => {
  const cut: Delta[] = [
    { kind: 'tool_call', index: 0, id: 'c', name: 'f' },
    { kind: 'tool_arguments', index: 0, text: '{"a": 1.10, "b": "to be co' },
  ]
  const whole = anthropic.whole(runOf({}), [{ deltas: cut, finish: 'length' }], usage)
  expect(whole).toContain('"input":{"a": 1.10}')
  expect(anthropicMessageSchema.parse(JSON.parse(whole)).stop_reason).toBe('max_tokens')
  const parts = eventsOf(anthropic.stream(runOf({})).deltas(0, cut))
  expect(parts.at(-1)).toMatchObject({ delta: { partial_json: '{"a": 1.10, "b": "to be co' } })
})

test('fields of a tool that say what is so anyway are taken, and change nothing', () => {
  const said = { ...tool, defer_loading: false, allowed_callers: ['direct'], eager_input_streaming: true }
  expect(runOf({ tools: [said] })).toEqual(runOf({ tools: [tool] }))
})

test('a thread is refused as Anthropic refuses it, so that its client goes on without', () => {
  const error = refusal({ thread: { type: 'create' } })
  expect(error.param).toBe('thread')
  const { details } = anthropicErrorSchema.parse(
    JSON.parse(anthropic.errorBody(error as ReturnType<typeof apiError>)),
  ).error
  expect(details).toEqual({ error_code: 'thread_unsupported_request', unsupported: ['thread'] })
  expect(refusal({ thread: null, inference_geo: null, diagnostics: null })).toEqual({})
  expect(refusal({ top_k: 2 ** 31 }).param).toBe('top_k')
})
