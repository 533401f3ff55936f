// What the OpenAI dialect accepts, what it refuses, and by which name.
import { expect, test } from 'vitest'
import type { ParseContext } from '../../schema/dialects/dialect.ts'
import { DIALECTS, dialectByName, dialectByPath } from '../../schema/dialects/index.ts'
import { openAiChat } from '../../schema/dialects/openai_chat.ts'
import { MAX_TOKENS_DEFAULT, MAX_TOKENS_MAX } from '../../schema/limits.ts'
import { type Run, runSchema } from '../../schema/wire.ts'

const context: ParseContext = { requestId: '019a1b2c-3d4e-7f50-8a6b-0123456789ab', created: 1795450000, seed: '42' }
const hello = { model: 'sparrow-mini', messages: [{ role: 'user', content: 'hi' }] }

const runOf = (body: unknown, extra: Partial<ParseContext> = {}): Run => {
  const result = openAiChat.parse(body, { ...context, ...extra })
  if (!result.ok) throw new Error(`${result.error.param}: ${result.error.message}`)
  // Whatever the dialect lets through, the wire must take.
  return runSchema.parse(result.value)
}

test('the smallest request', () => {
  expect(runOf(hello)).toEqual({
    ...context,
    model: 'sparrow-mini',
    dialect: 'openai_chat',
    chatFormat: 'deepseek_v32',
    prompt: '<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜></think>',
    thinking: false,
    noCalls: true,
    stream: false,
    includeUsage: false,
    maxTokens: MAX_TOKENS_DEFAULT,
    temperature: 1,
    topP: 1,
    stop: [],
  })
})

test.each<[string, object, Partial<Run>]>([
  ['nulls mean defaults', { temperature: null, stop: null, tools: null, seed: null, stream: null, n: null }, {}],
  ['temperature and top_p', { temperature: 0, top_p: 0.5 }, { temperature: 0, topP: 0.5 }],
  ['max_tokens', { max_tokens: 7 }, { maxTokens: 7 }],
  ['max_completion_tokens wins', { max_tokens: 7, max_completion_tokens: 9 }, { maxTokens: 9 }],
  ['one stop string', { stop: 'x' }, { stop: ['x'] }],
  ['stop strings', { stop: ['x', 'y'] }, { stop: ['x', 'y'] }],
  [
    'no stop string means the markup of a call that is demanded',
    { stop: '\n', tools: [{ type: 'function', function: { name: 'f' } }], tool_choice: 'required' },
    { stop: [] },
  ],
  ['seed', { seed: 7 }, { seed: '7' }],
  ['negative seed, modulo 2^64', { seed: -1 }, { seed: '18446744073709551615' }],
  ['stream', { stream: true }, { stream: true, includeUsage: false }],
  ['include_usage', { stream: true, stream_options: { include_usage: true } }, { stream: true, includeUsage: true }],
  ['include_usage without stream', { stream_options: { include_usage: true } }, { includeUsage: false }],
  ['thinking', { thinking: { type: 'enabled' } }, { thinking: true }],
  [
    'neutral values',
    { n: 1, best_of: 1, logprobs: false, top_logprobs: 0, response_format: { type: 'text' } },
    { n: undefined, topLogprobs: undefined },
  ],
  [
    'neutral sampling',
    { presence_penalty: 0, frequency_penalty: 0, repetition_penalty: 1, logit_bias: {}, top_k: -1, min_p: 0 },
    { presencePenalty: undefined, repetitionPenalty: undefined, logitBias: undefined, topK: undefined },
  ],
  ['choices', { n: 16 }, { n: 16 }],
  ['logprobs', { logprobs: true }, { topLogprobs: 0 }],
  ['top_logprobs', { logprobs: true, top_logprobs: 20 }, { topLogprobs: 20 }],
  ['penalties', { presence_penalty: -2, frequency_penalty: 2 }, { presencePenalty: -2, frequencyPenalty: 2 }],
  ['repetition_penalty', { repetition_penalty: 1.1 }, { repetitionPenalty: 1.1 }],
  ['logit_bias', { logit_bias: { 7: 100, 9: -100 } }, { logitBias: { 7: 100, 9: -100 } }],
  ['top_k and min_p', { top_k: 40, min_p: 0.05 }, { topK: 40, minP: 0.05 }],
  ['min_tokens', { min_tokens: 5, max_tokens: 5 }, { minTokens: 5, maxTokens: 5 }],
  ['ignore_eos', { ignore_eos: true }, { ignoreEos: true }],
  [
    'harmless fields',
    { user: 'u', metadata: { a: 1 }, store: true, service_tier: 'auto', parallel_tool_calls: false },
    {},
  ],
  ["the customer's user", { user_id: 'u_1-a' }, { userId: 'u_1-a' }],
  ['routing hint', { prompt_cache_key: 'session 7' }, { routingHint: 'session 7' }],
  ['unknown fields', { frobnicate: [1], __proto__: { n: 2 } }, {}],
])('accepted: %s', (_, extra, expected) => {
  expect(runOf({ ...hello, ...extra })).toMatchObject(expected)
})

test('messages of every role', () => {
  const call = { id: 'c1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }
  const messages = [
    { role: 'developer', content: 'Be brief.' },
    {
      role: 'user',
      name: 'eve',
      content: [
        { type: 'text', text: 'one' },
        { type: 'text', text: 'two' },
      ],
    },
    { role: 'assistant', content: null, reasoning_content: 'hm', tool_calls: [call] },
    { role: 'tool', tool_call_id: 'c1', content: '7' },
  ]
  const { prompt } = runOf({ model: 'm', messages, thinking: { type: 'enabled' } })
  expect(prompt).toBe(
    '<｜begin▁of▁sentence｜>Be brief.<｜User｜>one\ntwo<｜Assistant｜><think>hm</think>\n\n<｜DSML｜function_calls>\n' +
      '<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n' +
      '</｜DSML｜function_calls><｜end▁of▁sentence｜>\n\n<function_results>\n<result>7</result>\n</function_results>\n\n<think>',
  )
  const asObject = { ...call, function: { name: 'f', arguments: { a: 1 } } }
  const replay = messages.map((message) =>
    message.role === 'assistant' ? { ...message, tool_calls: [asObject] } : message,
  )
  expect(runOf({ model: 'm', messages: replay, thinking: { type: 'enabled' } }).prompt).toBe(prompt)
})

test('an answer without text, which OpenAI’s client makes null, is one with an empty text', () => {
  const said = (content: unknown) => {
    const answer = { role: 'assistant', content, refusal: null, parsed: null, reasoning_content: null }
    return runOf({ model: 'm', messages: [...hello.messages, answer, ...hello.messages] }).prompt
  }
  expect(said(null)).toBe(said(''))
})

test('tools are shown to the model as the client spelled them', () => {
  const bodyText = `{"model":"m","messages":[{"role":"user","content":"hi"}], "tools" : [
    {"type":"function","function":{"name":"f","parameters":{"10":1.0,"9":12345678901234567890}}},
    {"function":{"description":"é","name":"g"},"type":"function"}]}`
  const body: unknown = JSON.parse(bodyText)
  const { prompt } = runOf(body, { bodyText })
  expect(prompt).toContain(
    '<functions>\n{"name": "f", "parameters": {"10": 1.0, "9": 12345678901234567890}}\n{"description": "é", "name": "g"}\n</functions>',
  )
  expect(runOf(body).prompt).toContain('{"description": "é", "name": "g"}')
  expect(runOf({ ...hello, ...(body as object), tool_choice: 'none' }).prompt).not.toContain('functions')
})

test.each<[string, unknown, string | undefined]>([
  ['null', null, undefined],
  ['an array', [hello], undefined],
  ['a string', 'hello', undefined],
  ['no messages', { model: 'm' }, 'messages'],
  ['messages that are no array', { model: 'm', messages: 'hi' }, 'messages'],
  ['no message', { model: 'm', messages: [] }, 'messages'],
  ['a message that is no object', { model: 'm', messages: [hello.messages[0], 'hi'] }, 'messages.1'],
  [
    'an answer as the last message',
    { model: 'm', messages: [...hello.messages, { role: 'assistant', content: 'x' }] },
    'messages.1',
  ],
  [
    'a tool result without a call',
    { model: 'm', messages: [{ role: 'tool', content: 'x', tool_call_id: 'c' }] },
    'messages.0.tool_call_id',
  ],
])('malformed: %s', (_, body, param) => {
  const result = openAiChat.parse(body, context)
  expect(result).toMatchObject({ ok: false, error: { code: 'invalid_request' } })
  expect(result.ok ? '' : result.error.param).toBe(param)
})

const tool = { type: 'function', function: { name: 'f' } }
const message = (fields: object) => ({ messages: [{ role: 'user', content: 'a', ...fields }] })

test.each<[string, object]>([
  ['model', { model: undefined }],
  ['model', { model: '' }],
  ['messages.0.role', message({ role: 'boss' })],
  ['messages.0.role', message({ role: undefined })],
  ['messages.0.content', message({ content: undefined })],
  ['messages.0.content', message({ content: 7 })],
  ['messages.0.content', message({ content: [] })],
  ['messages.0.content.0.type', message({ content: [{ type: 'image_url', image_url: { url: 'x' } }] })],
  ['messages.0.content', message({ role: 'assistant', content: undefined })],
  ['messages.0.tool_call_id', message({ role: 'tool' })],
  ['messages.0.prefix', message({ role: 'assistant', prefix: 1 })],
  ['messages.0.prefix', { messages: [{ role: 'assistant', content: 'a', prefix: true }, ...hello.messages] }],
  ['messages.0.prefix', { ...message({ role: 'assistant', prefix: true }), response_format: { type: 'json_object' } }],
  ['messages.0.prefix', { ...message({ role: 'assistant', prefix: true }), tools: [tool], tool_choice: 'required' }],
  ['messages.0.function_call', message({ role: 'assistant', function_call: { name: 'f', arguments: '' } })],
  ['messages.0.role', message({ role: 'function', name: 'f' })],
  ['reasoning_effort', { reasoning_effort: 'huge' }],
  ['verbosity', { verbosity: 'high' }],
  ['user_id', { user_id: 'a b' }],
  ['prompt_cache_key', { prompt_cache_key: 7 }],
  ['user', { user: {} }],
  ['max_tokens', { max_tokens: 1e308 }],
  ['seed', { seed: -1e300 }],
  ['stream_options.include_obfuscation', { stream_options: { include_obfuscation: true } }],
  [
    'messages.0.tool_calls.0.function.name',
    message({ role: 'assistant', tool_calls: [{ id: 'x', function: { name: '', arguments: '' } }] }),
  ],
  ['thinking.type', { thinking: { type: 'adaptive' } }],
  ['max_tokens', { max_tokens: 0 }],
  ['max_tokens', { max_tokens: 1.5 }],
  ['max_completion_tokens', { max_completion_tokens: MAX_TOKENS_MAX + 1 }],
  ['temperature', { temperature: 2.1 }],
  ['temperature', { temperature: '1' }],
  ['top_p', { top_p: -0.1 }],
  ['stop', { stop: 7 }],
  ['stop', { stop: Array.from({ length: 17 }, () => 'x') }],
  ['stop.0', { stop: [''] }],
  ['seed', { seed: 0.5 }],
  ['seed', { seed: 2 ** 53 }],
  ['stream', { stream: 'yes' }],
  ['stream_options.include_usage', { stream: true, stream_options: { include_usage: 1 } }],
  ['tools.0.type', { tools: [{ type: 'retrieval', function: { name: 'f' } }] }],
  ['tools.1.function.name', { tools: [tool, { type: 'function', function: { name: 'a b' } }] }],
  ['tools.0.function.strict', { tools: [{ type: 'function', function: { name: 'f', strict: 'yes' } }] }],
  ['tools', { tools: Array.from({ length: 129 }, () => tool) }],
  ['tool_choice', { tool_choice: 'required' }],
  ['tool_choice', { tool_choice: tool }],
  ['n', { n: 17 }],
  ['n', { n: 0 }],
  ['best_of', { best_of: 2 }],
  ['logprobs', { logprobs: 3 }],
  ['top_logprobs', { top_logprobs: 3 }],
  ['top_logprobs', { logprobs: true, top_logprobs: 21 }],
  ['frequency_penalty', { frequency_penalty: 2.1 }],
  ['presence_penalty', { presence_penalty: -3 }],
  ['repetition_penalty', { repetition_penalty: 0 }],
  ['top_k', { top_k: 0.5 }],
  ['min_p', { min_p: 1.5 }],
  ['logit_bias.7', { logit_bias: { 7: 101 } }],
  ['logit_bias.seven', { logit_bias: { seven: 1 } }],
  ['logit_bias', { logit_bias: Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [i, 1])) }],
  ['min_tokens', { min_tokens: 6, max_tokens: 5 }],
  ['min_tokens', { min_tokens: -1 }],
  ['ignore_eos', { ignore_eos: 1 }],
  ['response_format.type', { response_format: { type: 'xml' } }],
  ['response_format.json_schema', { response_format: { type: 'json_schema' } }],
  ['tool_choice', { tools: [tool], tool_choice: { type: 'function', function: { name: 'g' } } }],
  ['modalities', { modalities: ['audio'] }],
  ['functions', { functions: [{ name: 'f' }] }],
])('bad parameter: %s in %j', (param, extra) => {
  const result = openAiChat.parse({ ...hello, ...extra }, context)
  expect(result).toMatchObject({ ok: false, error: { code: 'invalid_parameter', param } })
  expect(result.ok ? '' : result.error.message).toMatch(new RegExp(`^${param}: .`))
})

test('no JSON makes the parser throw', () => {
  const values: unknown[] = [null, true, 0, '', [], {}, [[]], [{}], [null], { type: 'function' }, 'user', -1e308]
  const keys = [
    'model',
    'messages',
    'tools',
    'stop',
    'seed',
    'thinking',
    'stream_options',
    'tool_choice',
    'max_tokens',
    'n',
  ]
  for (const key of keys)
    for (const value of values) expect(typeof openAiChat.parse({ ...hello, [key]: value }, context).ok).toBe('boolean')
  for (const key of ['role', 'content', 'tool_calls', 'reasoning_content', 'tool_call_id', 'prefix'])
    for (const role of ['user', 'assistant', 'tool', 'system'])
      for (const value of values)
        expect(typeof openAiChat.parse({ ...hello, ...message({ role, [key]: value }) }, context).ok).toBe('boolean')
})

test('the registry', () => {
  expect(dialectByName('openai_chat')).toBe(openAiChat)
  expect(dialectByName('gopher')).toBeUndefined()
  expect(dialectByPath('/v1/chat/completions')).toBe(openAiChat)
  expect(dialectByPath('/chat/completions')).toBe(openAiChat)
  expect(dialectByPath('/beta/chat/completions')).toBe(openAiChat)
  expect(new Set(DIALECTS.flatMap((dialect) => dialect.paths)).size).toBe(DIALECTS.flatMap(({ paths }) => paths).length)
})
