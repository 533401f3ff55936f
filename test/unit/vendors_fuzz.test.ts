// Whatever JSON arrives, the vendors' dialects answer with a run or with an error of the client's own making; nothing throws.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { anthropic, parseAnthropicCount } from '../../schema/dialects/anthropic.ts'
import type { ParseContext } from '../../schema/dialects/dialect.ts'
import { parseResponsesCount, responses } from '../../schema/dialects/responses.ts'
import { parseTokenize } from '../../schema/dialects/tokenize.ts'
import { statusOf } from '../../schema/errors.ts'
import { runSchema } from '../../schema/wire.ts'

const context: ParseContext = { requestId: '019a1b2c-3d4e-7f50-8a6b-0123456789ab', created: 1795450000, seed: '1' }

const schema = { type: 'object', properties: { a: { type: 'number' } }, required: ['a'] }
const anthropicBody = {
  model: 'm',
  max_tokens: 5,
  system: [{ type: 'text', text: 'x', cache_control: { type: 'ephemeral' } }],
  tools: [{ name: 'add', description: 'd', input_schema: schema, strict: true }],
  tool_choice: { type: 'any', disable_parallel_tool_use: true },
  thinking: { type: 'enabled', budget_tokens: 1024 },
  output_config: { effort: 'low' },
  messages: [
    { role: 'user', content: 'Hi' },
    {
      role: 'assistant',
      content: [
        { type: 'thinking', thinking: 't', signature: 's' },
        { type: 'tool_use', id: 'c', name: 'add', input: { a: 1 } },
      ],
    },
    { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'c', content: [{ type: 'text', text: '2' }] }] },
  ],
}
const responsesBody = {
  model: 'm',
  instructions: 'x',
  tools: [{ type: 'function', name: 'add', parameters: schema, strict: true }],
  text: { format: { type: 'json_schema', name: 'x', schema } },
  reasoning: { effort: 'low', summary: 'auto' },
  input: [
    { role: 'user', content: [{ type: 'input_text', text: 'Hi' }] },
    { type: 'reasoning', summary: [], content: [{ type: 'reasoning_text', text: 't' }] },
    { type: 'function_call', call_id: 'c', name: 'add', arguments: '{"a":1}' },
    { type: 'function_call_output', call_id: 'c', output: '2' },
  ],
}

/** `body` with the value at a random place replaced, removed or given a stranger beside it. */
const mutate = (body: unknown, picks: readonly number[], change: unknown, how: number): unknown => {
  if (typeof body !== 'object' || body === null || picks.length === 0) return change
  const keys = Object.keys(body)
  const key = keys[(picks[0] ?? 0) % Math.max(1, keys.length)]
  if (key === undefined) return change
  const copy = structuredClone(body) as Record<string, unknown>
  if (picks.length > 1) copy[key] = mutate(copy[key], picks.slice(1), change, how)
  else if (how === 0 && !Array.isArray(copy)) delete copy[key]
  else if (how === 1 && !Array.isArray(copy)) copy.stranger = change
  else copy[key] = change
  return copy
}

const PARSERS = [
  ['messages', anthropicBody, anthropic.parse],
  ['count_tokens', anthropicBody, parseAnthropicCount],
  ['responses', responsesBody, responses.parse],
  ['input_tokens', responsesBody, parseResponsesCount],
  ['tokenize', { model: 'm', prompt: 'x' }, parseTokenize],
] as const

test.each(PARSERS)('%s: any body is a run or a 4xx', (_name, base, parse) => {
  const picks = fc.array(fc.nat(20), { minLength: 1, maxLength: 5 })
  fc.assert(
    fc.property(picks, fc.jsonValue({ maxDepth: 3 }), fc.nat(2), (path, change, how) => {
      const parsed = parse(mutate(base, path, change, how), context)
      if (!parsed.ok) expect(statusOf(parsed.error.code)).toBeLessThan(500)
      else if ('requestId' in parsed.value) runSchema.parse(parsed.value)
    }),
    { numRuns: 300 },
  )
})
