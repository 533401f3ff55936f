// Bytes of answers in the OpenAI dialect: golden streams, whole bodies, errors, and the official client reading them.
import OpenAI from 'openai'
import { expect, expectTypeOf, test } from 'vitest'
import type { z } from 'zod'
import type { Delta, Usage } from '../../schema/dialects/dialect.ts'
import { openAiChat, openAiUsage } from '../../schema/dialects/openai_chat.ts'
import type { chatChunkSchema, chatCompletionSchema } from '../../schema/dialects/openai_chat_answer.ts'
import { apiError, ERRORS, isErrorCode } from '../../schema/errors.ts'
import type { FinishReason, Run } from '../../schema/wire.ts'

const run: Run = {
  requestId: '019a1b2c-3d4e-7f50-8a6b-0123456789ab',
  created: 1795450000,
  model: 'sparrow-mini',
  dialect: 'openai_chat',
  chatFormat: 'deepseek_v32',
  prompt: 'p',
  thinking: false,
  stream: true,
  includeUsage: false,
  maxTokens: 10,
  temperature: 1,
  topP: 1,
  seed: '1',
  stop: [],
}
const usage: Usage = { hit: 320, miss: 19, output: 7, reasoning: 3 }
const usageJson =
  '{"prompt_tokens":339,"completion_tokens":7,"total_tokens":346,"prompt_tokens_details":{"cached_tokens":320},' +
  '"completion_tokens_details":{"reasoning_tokens":3},"prompt_cache_hit_tokens":320,"prompt_cache_miss_tokens":19}'
const head =
  '"id":"019a1b2c-3d4e-7f50-8a6b-0123456789ab","object":"chat.completion.chunk","created":1795450000,' +
  '"model":"sparrow-mini","system_fingerprint":"fp_'
const HEAD = /fp_[0-9a-f]{10}"/g

const streamOf = (
  options: Partial<Run>,
  steps: readonly (readonly Delta[])[],
  reason: FinishReason = 'stop',
): string => {
  const formatter = openAiChat.stream({ ...run, ...options })
  return (
    formatter.start(usage) +
    steps.map((deltas) => formatter.deltas(0, deltas)).join('') +
    formatter.finish([reason], usage)
  )
}

const wholeOf = (of: Run, deltas: readonly Delta[], finish: FinishReason): string =>
  openAiChat.whole(of, [{ deltas, finish }], usage)

/** Frames without what is the same in all of them. */
const bodies = (stream: string): string[] => {
  const frames = stream.split('\n\n')
  expect(frames.pop()).toBe('')
  expect(frames.pop()).toBe('data: [DONE]')
  return frames.map((frame) => {
    expect(frame.startsWith(`data: {${head}`)).toBe(true)
    JSON.parse(frame.slice(6))
    return frame.replace(HEAD, 'fp"').slice(`data: {${head.replace('fp_', 'fp"')},`.length)
  })
}

const choice = (delta: string, finish = 'null'): string =>
  `"choices":[{"index":0,"delta":{${delta}},"logprobs":null,"finish_reason":${finish}}]`

test('a chat stream, byte for byte', () => {
  const steps: Delta[][] = [
    [{ kind: 'content', text: 'He"l\n' }],
    [],
    [
      { kind: 'content', text: 'lo' },
      { kind: 'content', text: '😀' },
    ],
  ]
  expect(bodies(streamOf({}, steps))).toEqual([
    `${choice('"role":"assistant","content":""')}}`,
    `${choice('"content":"He\\"l\\n"')}}`,
    `${choice('"content":"lo"')}}`,
    `${choice('"content":"😀"')}}`,
    `${choice('"content":""', '"stop"')},"usage":${usageJson}}`,
  ])
})

test('who asks for no usage finds it once, in the last chunk of all choices', () => {
  const end = openAiChat.stream({ ...run, n: 3 }).finish(['stop', 'length', 'stop'], usage)
  const told = end.match(/^data: {.*$/gm)?.map((line) => (JSON.parse(line.slice(6)) as { usage?: object }).usage)
  expect(told).toEqual([undefined, undefined, openAiUsage(usage)])
})

test('a thinking stream with tool calls and usage, byte for byte', () => {
  const steps: Delta[][] = [
    [{ kind: 'reasoning', text: 'hm' }],
    [
      { kind: 'tool_call', index: 0, id: 'call_00_x', name: 'f' },
      { kind: 'tool_arguments', index: 0, text: '{"a": 1}' },
    ],
  ]
  expect(bodies(streamOf({ thinking: true, includeUsage: true }, steps, 'tool_calls'))).toEqual([
    `${choice('"role":"assistant","content":null,"reasoning_content":""')},"usage":null}`,
    `${choice('"content":null,"reasoning_content":"hm"')},"usage":null}`,
    `${choice('"tool_calls":[{"index":0,"id":"call_00_x","type":"function","function":{"name":"f","arguments":""}}]')},"usage":null}`,
    `${choice('"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\": 1}"}}]')},"usage":null}`,
    `${choice('"reasoning_content":null,"content":""', '"tool_calls"')},"usage":null}`,
    `"choices":[],"usage":${usageJson}}`,
  ])
})

test('usage has the fields of both dialects, zeros included, and they agree', () => {
  expect(JSON.stringify(openAiUsage(usage))).toBe(usageJson)
  const zero = openAiUsage({ hit: 0, miss: 0, output: 0, reasoning: 0 })
  expect(Object.keys(zero)).toEqual(Object.keys(openAiUsage(usage)))
  expect(zero.prompt_tokens_details.cached_tokens).toBe(0)
  expect(zero.completion_tokens_details.reasoning_tokens).toBe(0)
})

test.each<[FinishReason, string]>([
  ['stop', 'stop'],
  ['length', 'length'],
  ['tool_calls', 'tool_calls'],
  ['error', 'insufficient_system_resource'],
])('finish reason %s is %s', (reason, expected) => {
  expect(JSON.parse(wholeOf(run, [], reason)).choices[0].finish_reason).toBe(expected)
  expect(streamOf({}, [], reason)).toContain(`"finish_reason":"${expected}"`)
})

test('whole answers', () => {
  const text: Delta[] = [
    { kind: 'reasoning', text: 'h' },
    { kind: 'reasoning', text: 'm' },
    { kind: 'content', text: 'Yes' },
    { kind: 'content', text: '.' },
  ]
  const whole = wholeOf({ ...run, thinking: true }, text, 'stop')
  expect(whole.replace(HEAD, 'fp"')).toBe(
    `{${head.replace('.chunk', '').replace('fp_', 'fp"')},"choices":[{"index":0,"message":{"role":"assistant",` +
      `"content":"Yes.","refusal":null,"reasoning_content":"hm"},"logprobs":null,"finish_reason":"stop"}],"usage":${usageJson}}`,
  )
  const calls: Delta[] = [
    { kind: 'tool_call', index: 0, id: 'a', name: 'f' },
    { kind: 'tool_arguments', index: 0, text: '{"a":' },
    { kind: 'tool_arguments', index: 0, text: '1}' },
    { kind: 'tool_call', index: 1, id: 'b', name: 'g' },
    { kind: 'tool_arguments', index: 1, text: '{}' },
  ]
  expect(JSON.parse(wholeOf(run, calls, 'tool_calls')).choices[0].message).toEqual({
    role: 'assistant',
    content: null,
    refusal: null,
    tool_calls: [
      { id: 'a', type: 'function', function: { name: 'f', arguments: '{"a":1}' } },
      { id: 'b', type: 'function', function: { name: 'g', arguments: '{}' } },
    ],
  })
  expect(JSON.parse(wholeOf(run, [], 'stop')).choices[0].message).toEqual({
    role: 'assistant',
    content: '',
    refusal: null,
  })
})

test('the fingerprint names model and chat format, nothing of the request', () => {
  const of = (options: Partial<Run>): string =>
    JSON.parse(wholeOf({ ...run, ...options }, [], 'stop')).system_fingerprint
  expect(of({ prompt: 'other', seed: '2' })).toBe(of({}))
  expect(of({ model: 'other' })).not.toBe(of({}))
})

test('errors', () => {
  expect(
    openAiChat.errorBody(apiError('invalid_parameter', { message: 'n: no.', param: 'n', internal: 'secret' })),
  ).toBe('{"error":{"message":"n: no.","type":"invalid_request_error","param":"n","code":"invalid_parameter"}}')
  for (const code of Object.keys(ERRORS).filter(isErrorCode)) {
    const frame = openAiChat.errorFrame(apiError(code))
    expect(frame).toBe(`data: ${openAiChat.errorBody(apiError(code))}\n\n`)
    expect(JSON.parse(frame.slice(6)).error).toEqual({
      message: ERRORS[code].message,
      type: ERRORS[code].type,
      param: null,
      code,
    })
  }
})

const tokenOf = (text: string, logprob: number) => ({ bytes: new TextEncoder().encode(text), logprob })
const yes = { ...tokenOf('Yes', -0.5), top: [tokenOf('Yes', -0.5), tokenOf('No', Number.NEGATIVE_INFINITY)] }
const half = { bytes: Uint8Array.of(0xf0, 0x9f), logprob: -2, top: [] }
const yesJson =
  '{"token":"Yes","logprob":-0.5,"bytes":[89,101,115],"top_logprobs":[{"token":"Yes","logprob":-0.5,"bytes":[89,101,115]},' +
  '{"token":"No","logprob":-9999,"bytes":[78,111]}]}'
const halfJson = '{"token":"\ufffd","logprob":-2,"bytes":[240,159],"top_logprobs":[]}'

test('log-probabilities, streamed and whole', () => {
  const deltas: Delta[] = [
    { kind: 'reasoning', text: '!', logprobs: [half] },
    { kind: 'content', text: 'Yes', logprobs: [yes, half] },
    { kind: 'tool_call', index: 0, id: 'a', name: 'f' },
  ]
  const asked = { thinking: true, topLogprobs: 2 }
  const frames = bodies(streamOf(asked, [deltas]))
  expect(frames[1]).toContain(`"logprobs":{"content":null,"refusal":null,"reasoning_content":[${halfJson}]}`)
  expect(frames[2]).toContain(`"logprobs":{"content":[${yesJson},${halfJson}],"refusal":null}`)
  for (const i of [0, 3, 4]) expect(frames[i]).toContain('"logprobs":null')
  const { logprobs } = JSON.parse(wholeOf({ ...run, ...asked }, deltas, 'stop')).choices[0]
  expect(logprobs).toEqual({
    content: [JSON.parse(yesJson), JSON.parse(halfJson)],
    refusal: null,
    reasoning_content: [JSON.parse(halfJson)],
  })
})

test('several choices, streamed and whole', () => {
  const formatter = openAiChat.stream({ ...run, n: 2 })
  const stream =
    formatter.start(usage) +
    formatter.deltas(1, [{ kind: 'content', text: 'b' }]) +
    formatter.deltas(0, [{ kind: 'content', text: 'a' }]) +
    formatter.finish(['stop', 'length'], usage)
  const told = bodies(stream).map((body) => {
    const { index, delta, finish_reason } = JSON.parse(`{${body}`).choices[0]
    return [index, delta.content, finish_reason]
  })
  expect(told).toEqual([
    ...[
      [0, '', null],
      [1, '', null],
      [1, 'b', null],
      [0, 'a', null],
    ],
    ...[
      [0, '', 'stop'],
      [1, '', 'length'],
    ],
  ])
  const choices = (['stop', 'length'] as const).map((finish) => ({ deltas: [], finish }))
  const whole = JSON.parse(openAiChat.whole({ ...run, n: 2 }, choices, usage))
  expect(whole.choices.map((one: { index: number; finish_reason: string }) => [one.index, one.finish_reason])).toEqual([
    [0, 'stop'],
    [1, 'length'],
  ])
})

const clientOf = (body: string, type: string): OpenAI =>
  new OpenAI({
    apiKey: 'sk-x',
    baseURL: 'http://localhost/v1',
    maxRetries: 0,
    fetch: async () => new Response(body, { headers: { 'content-type': type } }),
  })
const ask = { model: 'm', messages: [{ role: 'user' as const, content: 'hi' }] }

test('the official client reads streams, bodies and a broken stream', async () => {
  const deltas: Delta[][] = [
    [{ kind: 'content', text: 'Hel' }],
    [
      { kind: 'content', text: 'lo' },
      { kind: 'tool_call', index: 0, id: 'c', name: 'f' },
      { kind: 'tool_arguments', index: 0, text: '{}' },
    ],
  ]
  const sse = 'text/event-stream; charset=utf-8'
  const stream = clientOf(streamOf({ includeUsage: true }, deltas, 'tool_calls'), sse).chat.completions.stream(ask)
  const final = await stream.finalChatCompletion()
  expect(final.choices[0]?.message).toMatchObject({
    content: 'Hello',
    tool_calls: [{ id: 'c', function: { name: 'f', arguments: '{}' } }],
  })
  expect(final.choices[0]?.finish_reason).toBe('tool_calls')
  expect(final.usage).toEqual(openAiUsage(usage))
  const whole = wholeOf(run, deltas.flat(), 'tool_calls')
  const read = await clientOf(whole, 'application/json').chat.completions.create(ask)
  expect(read.choices[0]?.message).toMatchObject({ content: 'Hello', tool_calls: [{ id: 'c' }] })
  const broken = streamOf({}, deltas).split('data: [DONE]')[0] + openAiChat.errorFrame(apiError('stream_interrupted'))
  const chunks = await clientOf(broken, sse).chat.completions.create({ ...ask, stream: true })
  await expect(async () => {
    for await (const _ of chunks);
  }).rejects.toMatchObject({ code: 'stream_interrupted' })
})

test('what is sent has the types that OpenAI publishes', () => {
  // DeepSeek has one more finish reason than OpenAI.
  type Known<C> = C extends { finish_reason: infer F }
    ? Omit<C, 'finish_reason'> & { finish_reason: Exclude<F, 'insufficient_system_resource'> }
    : never
  type Bare<A extends { choices: unknown[] }> = Omit<A, 'choices'> & { choices: Known<A['choices'][number]>[] }
  expectTypeOf<Bare<z.infer<typeof chatCompletionSchema>>>().toExtend<OpenAI.ChatCompletion>()
  expectTypeOf<Bare<z.infer<typeof chatChunkSchema>>>().toExtend<OpenAI.ChatCompletionChunk>()
})
