// Text completions: what the dialect accepts and refuses, and the bytes of its answers.
import { expect, test } from 'vitest'
import { completions } from '../../schema/dialects/completions.ts'
import { completionSchema } from '../../schema/dialects/completions_answer.ts'
import type { Delta, SampledToken, Usage } from '../../schema/dialects/dialect.ts'
import { worstCase } from '../../schema/prompts.ts'
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
  ['echo of token ids', { echo: true, prompt: [1] }, { promptTokens: [1], echoTokens: true }],
  ['echo with logprobs', { echo: true, logprobs: 1 }, { echoText: 'One two', topLogprobs: 1 }],
  [
    'several texts',
    { prompt: ['a', 'b'], echo: true },
    { echoText: 'a', morePrompts: [{ prompt: `${BOS}b`, echoText: 'b' }] },
  ],
  [
    'several arrays of ids',
    { prompt: [[1], [2, 3]] },
    { promptTokens: [1], morePrompts: [{ prompt: '', promptTokens: [2, 3] }] },
  ],
  ['128 answers', { prompt: new Array(64).fill('a'), n: 2 }, { n: 2, prompt: `${BOS}a` }],
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
  ['prompt', { prompt: ['a', [1]] }],
  ['prompt', { prompt: new Array(129).fill('a') }],
  ['n', { prompt: new Array(65).fill('a'), n: 2 }],
  ['prompt', { prompt: [] }],
  ['prompt', { prompt: [[1], []] }],
  ['logprobs', { logprobs: true }],
  ['logprobs', { logprobs: 21 }],
  ['suffix', { suffix: 'x', logprobs: 1, echo: true }],
  ['suffix', { suffix: 'x', prompt: [1] }],
  ['suffix', { suffix: 'x', prompt: [[1], [2]] }],
  ['best_of', { best_of: 2 }],
  ['min_tokens', { min_tokens: 17 }],
  ['max_tokens', { max_tokens: -1 }],
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
  const unasked = framesOf(completions.stream({ ...run, stream: true }).finish(['stop'], usage))
  expect(unasked).toMatchObject([{ choices: [{ finish_reason: 'stop' }], usage: { completion_tokens: 3 } }])
})

test('offsets are those of the text, also where tokens are no UTF-8', () => {
  const run = runOf({ logprobs: 0 })
  const pieces = [
    [0x80],
    [0x80, 0x61],
    [0xe2, 0x82],
    [0x61],
    [0xf0, 0x80],
    [0xef, 0xbb, 0xbf],
    [0xf0, 0x9f],
    [0x8e, 0x89],
    [0x62],
  ]
  const tokens = pieces.map((piece) => token(Uint8Array.from(piece), -1))
  const decode = (some: number[][]) => [
    ...new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(some.flat())),
  ]
  const deltas = [content(decode(pieces).join(''), ...tokens)]
  const whole = JSON.parse(completions.whole(run, [{ deltas, finish: 'stop' }], usage))
  // A character that is not whole yet counts as begun.
  const offsets = pieces.map((_, i) => decode(pieces.slice(0, i)).length)
  expect(whole.choices[0].logprobs.text_offset).toEqual(offsets)
  const stream = completions.stream({ ...run, stream: true })
  const text = tokens.map((one) => stream.deltas(0, [content('', one)])).join('')
  const frames = framesOf(text) as { choices: { logprobs: { text_offset: number[] } }[] }[]
  expect(frames.flatMap(({ choices }) => choices[0]?.logprobs.text_offset)).toEqual(offsets)
})

test('the first token of an echoed prompt has no log-probability', () => {
  const run = runOf({ logprobs: 1, echo: true })
  const unscored: SampledToken = { bytes: bytes('One'), logprob: 0, top: [], unscored: true }
  const deltas = [content('One two', unscored, token(bytes(' two'), -1, [' two', -1]))]
  const whole = completionSchema.parse(JSON.parse(completions.whole(run, [{ deltas, finish: 'stop' }], usage)))
  expect(whole.choices[0]?.logprobs).toEqual({
    tokens: ['One', ' two'],
    token_logprobs: [null, -1],
    top_logprobs: [null, { ' two': -1 }],
    text_offset: [0, 3],
  })
})

test('the worst case of a run counts every byte of every prompt, and every answer', () => {
  const most = { promptBytes: 3 * Buffer.byteLength(BOS) + 4, maxTokens: 3 * 2 * 5 }
  expect(worstCase(runOf({ prompt: ['a', 'é', 'b'], n: 2, max_tokens: 5 }))).toEqual(most)
  expect(worstCase(runOf({ prompt: [[1, 2], [3]], max_tokens: 5 }))).toEqual({ promptBytes: 3, maxTokens: 10 })
})
