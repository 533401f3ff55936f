// Calls that a model makes up: whatever name it wrote, the answer with it is taken back in every dialect, as it was written.
import { expect, test } from 'vitest'
import { deepseekV32 } from '../../schema/chat/deepseek_v32.ts'
import type { Delta, Dialect, ParseContext } from '../../schema/dialects/dialect.ts'
import { dialectByName } from '../../schema/dialects/index.ts'
import type { Run } from '../../schema/wire.ts'

const context: ParseContext = { requestId: '019a1b2c-3d4e-7f50-8a6b-0123456789ab', created: 1795450000, seed: '1' }
const usage = { hit: 0, miss: 9, output: 9, reasoning: 0 }
const user = { role: 'user', content: 'Hi' }

/** The request that follows an answer, as clients build it. */
type Next = (answer: never) => object

const DIALECTS: readonly [name: string, first: object, next: Next][] = [
  [
    'openai_chat',
    { messages: [user] },
    ({ choices: [choice] }: { choices: { message: { tool_calls: { id: string }[] } }[] }) => ({
      messages: [
        user,
        choice?.message,
        { role: 'tool', tool_call_id: choice?.message.tool_calls[0]?.id, content: '7' },
      ],
    }),
  ],
  [
    'anthropic_messages',
    { max_tokens: 10, messages: [user] },
    ({ content }: { content: { id: string }[] }) => ({
      max_tokens: 10,
      messages: [
        ...[user, { role: 'assistant', content }],
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: content[0]?.id, content: '7' }] },
      ],
    }),
  ],
  [
    'openai_responses',
    { input: [user] },
    ({ output }: { output: { call_id: string }[] }) => ({
      input: [user, ...output, { type: 'function_call_output', call_id: output[0]?.call_id, output: '7' }],
    }),
  ],
]

const runOf = (dialect: Dialect, body: object): Run => {
  const run = dialect.parse({ model: 'm', ...body }, context)
  if (!run.ok) throw new Error(`${run.error.code}: ${run.error.message}`)
  return run.value
}

const NAMES = ['web.search', 'get weather', 'f'.repeat(90)]

test.each(DIALECTS.flatMap((dialect) => NAMES.map((name) => [name, ...dialect] as const)))(
  '%s, in %s',
  (name, dialectName, first, next) => {
    const dialect = dialectByName(dialectName)
    if (!dialect) throw new Error('no such dialect')
    const text = `\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="${name}">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>`
    const parser = deepseekV32.parser({ thinking: false, stop: [], requestId: context.requestId })
    const deltas: Delta[] = [...parser.push(text), ...parser.end().deltas]
    const answer = dialect.whole(runOf(dialect, first), [{ deltas, finish: 'tool_calls' }], usage)
    expect(runOf(dialect, next(JSON.parse(answer) as never)).prompt).toContain(text)
  },
)
