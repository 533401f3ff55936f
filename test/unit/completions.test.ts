// Text completions: what the dialect accepts and refuses, and the bytes of its answers.
import { expect, test } from 'vitest'
import { completions } from '../../schema/dialects/completions.ts'
import type { Delta, SampledToken, Usage } from '../../schema/dialects/dialect.ts'
import { type Run, runSchema } from '../../schema/wire.ts'

const BOS = '<｜begin▁of▁sentence｜>'
const context = { requestId: '019a1b2c-3d4e-7f50-8a6b-0123456789ab', created: 1795450000, seed: '42' }
const parse = (extra: object) => completions.parse({ model: 'm', prompt: 'One two', ...extra }, context)
const runOf = (extra: object): Run => {
  const result = parse(extra)
  if (!result.ok) throw new Error(`${result.error.param}: ${result.error.message}`)
  return runSchema.parse(result.value)
}

test.each<[string, object, Partial<Run>]>([
  ['text', {}, { prompt: `${BOS}One two`, raw: true, maxTokens: 16, thinking: false, topLogprobs: undefined }],
  ['text that has the first token', { prompt: `${BOS}<think>` }, { prompt: `${BOS}<think>` }],
  ['one text in an array', { prompt: ['a'] }, { prompt: `${BOS}a` }],
  ['token ids', { prompt: [1, 2] }, { prompt: '', promptTokens: [1, 2] }],
  ['token ids in an array', { prompt: [[1, 2]] }, { promptTokens: [1, 2] }],
  ['echo', { echo: true, prompt: 'a' }, { echoText: 'a' }],
  ['logprobs', { logprobs: 3 }, { topLogprobs: 3 }],
  ['logprobs 0', { logprobs: 0 }, { topLogprobs: 0 }],
  ['sampling', { temperature: 0, n: 2, seed: 7, stop: 'x' }, { temperature: 0, n: 2, seed: '7', stop: ['x'] }],
  [
    'a gap',
    { prompt: 'a <｜fim▁hole｜>', suffix: 'b' },
    {
      prompt: `${BOS}<｜fim▁begin｜>a <\u2060｜fim▁hole｜><｜fim▁hole｜>b<｜fim▁end｜>`,
      needs: { tokens: ['<｜fim▁begin｜>', '<｜fim▁hole｜>', '<｜fim▁end｜>'], param: 'suffix' },
    },
  ],
])('accepted: %s', (_, extra, expected) => {
  expect(runOf(extra)).toMatchObject(expected)
})

test.each<[string, object]>([
  ['prompt', { prompt: undefined }],
  ['prompt', { prompt: ['a', 'b'] }],
  ['prompt', { prompt: [] }],
  ['prompt', { prompt: [[1], [2]] }],
  ['logprobs', { logprobs: true }],
  ['logprobs', { logprobs: 21 }],
  ['logprobs', { logprobs: 1, echo: true }],
  ['echo', { echo: true, prompt: [1] }],
  ['suffix', { suffix: 'x', prompt: [1] }],
  ['best_of', { best_of: 2 }],
  ['min_tokens', { min_tokens: 17 }],
  ['max_tokens', { max_tokens: 0 }],
])('refused: %s in %j', (param, extra) => {
  const result = parse(extra)
  expect(result).toMatchObject({ ok: false, error: { code: 'invalid_parameter' } })
  expect(result.ok ? '' : result.error.param?.split('.')[0]).toBe(param)
})

const usage: Usage = { hit: 0, miss: 3, output: 3, reasoning: 0 }
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const token = (of: Uint8Array, logprob: number, ...top: [string, number][]): SampledToken => ({
  ...{ bytes: of, logprob },
  top: top.map(([text, value]) => ({ bytes: bytes(text), logprob: value })),
})
const content = (text: string, ...logprobs: SampledToken[]): Delta => ({ kind: 'content', text, logprobs })
const framesOf = (text: string): unknown[] =>
  text
    .split('\n\n')
    .filter((frame) => frame.startsWith('data: {'))
    .map((frame) => JSON.parse(frame.slice(6)))

const euro = bytes('€')
const first = content(
  'a€',
  token(bytes('a'), -0.5, ['a', -0.5], ['b', -1]),
  token(euro.slice(0, 1), -1),
  token(euro.slice(1), 0),
)
const second = content('x', token(bytes('x'), Number.NEGATIVE_INFINITY))

test('log-probabilities: four lists, offsets in characters, bytes where a token is no text', () => {
  const run = runOf({ logprobs: 2 })
  const whole = JSON.parse(completions.whole(run, [{ deltas: [first, second], finish: 'length' }], usage))
  expect(whole).toMatchObject({ object: 'text_completion', id: context.requestId, usage: { prompt_tokens: 3 } })
  expect(whole.choices).toEqual([
    {
      ...{ text: 'a€x', index: 0, finish_reason: 'length' },
      logprobs: {
        tokens: ['a', 'bytes:\\xe2', 'bytes:\\x82\\xac', 'x'],
        token_logprobs: [-0.5, -1, 0, -9999],
        top_logprobs: [{ a: -0.5, b: -1 }, { 'bytes:\\xe2': -1 }, { 'bytes:\\x82\\xac': 0 }, { x: -9999 }],
        text_offset: [0, 1, 2, 2],
      },
    },
  ])
  const stream = completions.stream({ ...run, stream: true, includeUsage: true })
  const text =
    stream.start(usage) + stream.deltas(0, [first]) + stream.deltas(0, [second]) + stream.finish(['stop'], usage)
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
  const frames = framesOf(text) as { choices: { text: string; logprobs: { text_offset: number[] } | null }[] }[]
  expect(frames.map(({ choices }) => choices[0]?.text)).toEqual(['a€', 'x', '', undefined])
  expect(frames.flatMap(({ choices }) => choices[0]?.logprobs?.text_offset ?? [])).toEqual([0, 1, 2, 2])
  expect(frames.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 3 } })
})

test('echo: the prompt stands before each answer, once', () => {
  const run = runOf({ echo: true, n: 2, stream: true })
  const stream = completions.stream(run)
  const text = stream.start(usage) + stream.deltas(1, [content('x')]) + stream.finish(['stop', 'stop'], usage)
  const texts = ['', '']
  for (const { choices } of framesOf(text) as { choices: { index: number; text: string }[] }[])
    for (const choice of choices) texts[choice.index] += choice.text
  expect(texts).toEqual(['One two', 'One twox'])
  const whole = JSON.parse(
    completions.whole(
      run,
      [
        { deltas: [], finish: 'stop' },
        { deltas: [content('x')], finish: 'stop' },
      ],
      usage,
    ),
  )
  expect(whole.choices.map((choice: { text: string }) => choice.text)).toEqual(texts)
})
