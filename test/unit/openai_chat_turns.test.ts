// Thinking and prefixes: when the model reasons, what of its reasoning it sees again, and answers that a client began.
import { expect, test } from 'vitest'
import { openAiChat } from '../../schema/dialects/openai_chat.ts'
import type { Run } from '../../schema/wire.ts'

const context = { requestId: '019a1b2c-3d4e-7f50-8a6b-0123456789ab', created: 1795450000, seed: '42' }
const BOS = '<｜begin▁of▁sentence｜>'
const EOS = '<｜end▁of▁sentence｜>'
const ON = { thinking: { type: 'enabled' } }

const runOf = (messages: readonly object[], extra: object = {}, thinks?: boolean): Run => {
  const result = openAiChat.parse({ model: 'm', messages, ...extra }, { ...context, ...(thinks ? { thinks } : {}) })
  if (!result.ok) throw new Error(`${result.error.param}: ${result.error.message}`)
  return result.value
}

const user = (content: string) => ({ role: 'user', content })
const hello = [user('hi')]

test.each<[object, boolean, boolean]>([
  [{}, false, false],
  [{}, true, true],
  [ON, false, true],
  [{ thinking: { type: 'disabled' } }, true, false],
  [{ reasoning_effort: 'low' }, false, true],
  [{ reasoning_effort: 'none' }, true, false],
  [{ reasoning_effort: 'minimal' }, true, false],
  [{ reasoning_effort: 'high', thinking: { type: 'disabled' } }, false, false],
  [{ reasoning_effort: 'none', ...ON }, false, true],
])('%j, a name that thinks: %s -> %s', (extra, thinks, expected) => {
  const run = runOf(hello, extra, thinks)
  expect(run.thinking).toBe(expected)
  expect(run.prompt.endsWith(expected ? '<think>' : '</think>')).toBe(true)
})

const call = (id: string) => ({ id, type: 'function', function: { name: 'f', arguments: '{}' } })
const loop = (n: number) => [
  { role: 'assistant', content: '', reasoning_content: `why ${n}`, tool_calls: [call(`c${n}`)] },
  { role: 'tool', tool_call_id: `c${n}`, content: `r${n}` },
]

test('reasoning is kept across the tool calls of one turn, and dropped once the user goes on', () => {
  const inside = runOf([...hello, ...loop(1), ...loop(2)], ON).prompt
  expect(inside).toContain('<think>why 1</think>')
  expect(inside).toContain('<think>why 2</think>')
  expect(inside.endsWith('</function_results>\n\n<think>')).toBe(true)
  const after = [...hello, ...loop(1), ...loop(2), { role: 'assistant', content: 'done', reasoning_content: 'why 3' }]
  const later = runOf([...after, user('and?'), ...loop(4)], ON).prompt
  for (const n of [1, 2, 3]) expect(later).not.toContain(`why ${n}`)
  expect(later).toContain(`</think>done${EOS}<｜User｜>and?<｜Assistant｜><think>why 4</think>`)
  expect(runOf([...hello, ...loop(1)]).prompt).not.toContain('why 1')
})

test.each<[string, object, object, boolean, string]>([
  ['content', { content: '```py\n' }, {}, false, '<｜Assistant｜></think>```py\n'],
  ['content while thinking is on', { content: 'So' }, ON, false, '<｜Assistant｜><think></think>So'],
  ['reasoning', { content: '', reasoning_content: 'hm' }, ON, true, '<｜Assistant｜><think>hm'],
  ['reasoning alone', { reasoning_content: 'hm' }, ON, true, '<｜Assistant｜><think>hm'],
  ['both', { content: 'So', reasoning_content: 'hm' }, ON, false, '<｜Assistant｜><think>hm</think>So'],
  ['text that looks like a tag', { content: 'a <think' }, {}, false, '<｜Assistant｜></think>a <think'],
])('a prefix of %s: the answer goes on there', (_, fields, extra, thinking, end) => {
  const run = runOf([...hello, { role: 'assistant', prefix: true, ...fields }], extra)
  expect(run.prompt).toBe(`${BOS}<｜User｜>hi${end}`)
  expect(run.thinking).toBe(thinking)
})
