// Bodies of many faults: one thread reads for everybody, before the account is asked, so reading ends with the first.
import { expect, test } from 'vitest'
import type { z } from 'zod'
import { anthropicBodySchema } from '../../schema/dialects/anthropic_body.ts'
import { completionBodySchema } from '../../schema/dialects/completions_body.ts'
import { DIALECTS } from '../../schema/dialects/index.ts'
import { chatBodySchema } from '../../schema/dialects/openai_chat_body.ts'
import { readShape } from '../../schema/dialects/read_shape.ts'
import { responsesBodySchema } from '../../schema/dialects/responses_body.ts'

const many = (item: unknown, count = 1000): unknown[] => Array.from({ length: count }, () => item)
const user = { role: 'user', content: 'a' }
const chat = { model: 'm', messages: [user] }
const anthropic = { ...chat, max_tokens: 1 }
const responses = { model: 'm', input: 'a' }
const call = { id: '', function: { name: '', arguments: '' } }

/** A union tells what is wrong with each of its branches. */
const count = (issues: readonly z.core.$ZodIssue[]): number =>
  issues.reduce((sum, issue) => {
    const inner = issue.code === 'invalid_union' ? issue.errors.reduce((of, branch) => of + count(branch), 0) : 0
    return sum + 1 + inner
  }, 0)

const CHAT_ITEMS: unknown[] = [
  ...[{}, 1, { role: 'x' }, { role: 'user', content: [] }, { role: 'user', content: many({}) }, { role: 'assistant' }],
  { role: 'tool', content: 'a', tool_call_id: '' },
  { role: 'assistant', content: 'a', tool_calls: many(call) },
  { role: 'assistant', content: 'a', prefix: true, tool_calls: [{ id: 'a', function: { name: 'b', arguments: '' } }] },
]
const CASES: [z.ZodType, object][] = [
  ...CHAT_ITEMS.map((item): [z.ZodType, object] => [chatBodySchema, { ...chat, messages: many(item) }]),
  [chatBodySchema, { ...chat, stop: many('') }],
  [chatBodySchema, { ...chat, tools: many({ type: 'function', function: { name: '' } }) }],
  ...[1.5, -1, {}, []].map((item): [z.ZodType, object] => [completionBodySchema, { model: 'm', prompt: many(item) }]),
  ...[{}, { type: 'x' }, { role: 'user', content: [] }, { type: 'reasoning', content: many({}) }].map(
    (item): [z.ZodType, object] => [responsesBodySchema, { ...responses, input: many(item) }],
  ),
  [responsesBodySchema, { ...responses, tools: many({ type: 'function', name: '' }) }],
  ...[{}, { role: 'user', content: [] }, { role: 'user', content: many({}) }].map((item): [z.ZodType, object] => [
    anthropicBodySchema,
    { ...anthropic, messages: many(item) },
  ]),
  [anthropicBodySchema, { ...anthropic, stop_sequences: many('') }],
  [anthropicBodySchema, { ...anthropic, system: many({}) }],
]

test.each(CASES.map(([schema, body]) => [JSON.stringify(body).slice(0, 90), schema, body] as const))(
  'a thousand of a fault are read up to the first: %s',
  (_name, schema, body) => {
    const read = readShape(schema, body)
    expect(read.success).toBe(false)
    expect(count(read.error?.issues ?? [])).toBeLessThan(20)
  },
)

test.each([
  ['openai_chat', { ...chat, messages: many(user, 100_001) }, 'messages'],
  ['anthropic_messages', { ...anthropic, messages: many(user, 100_001) }, 'messages'],
  ['openai_responses', { ...responses, input: many(user, 100_001) }, 'input'],
  ['openai_chat', { ...chat, logit_bias: Object.fromEntries(many(0, 5000).map((_, i) => [`x${i}`, 1])) }, 'logit_bias'],
  ['openai_responses', { ...responses, metadata: Object.fromEntries(many(0, 5000).map((_, i) => [i, 1])) }, 'metadata'],
])('%s: what has too many parts is not read', (name, body, param) => {
  const parsed = DIALECTS.find((dialect) => dialect.name === name)?.parse(body, {
    ...{ requestId: 'r', created: 1, seed: '1' },
  })
  expect(parsed).toMatchObject({ ok: false, error: { code: 'invalid_parameter', param } })
  expect(parsed?.ok === false && parsed.error.message).toMatch(/^\w+: must have at most (100000 items|4096 members)/)
})
