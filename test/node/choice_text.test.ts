// One answer's text from token ids: the tokens behind each piece when log-probabilities are asked for, and stop strings, of
// which no part ever shows. Any text, any grouping of tokens.
import fc from 'fast-check'
import { beforeAll, expect, test } from 'vitest'
import { ChoiceText } from '../../gpu-node/choice.ts'
import { readSettings } from '../../gpu-node/config.ts'
import { loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
import { DEFAULT_CHAT_FORMAT } from '../../schema/chat/index.ts'
import type { Delta } from '../../schema/dialects/dialect.ts'
import type { Run } from '../../schema/wire.ts'
import { runRequest } from './fixture.ts'

let tokenizer: Tokenizer
beforeAll(async () => {
  const { SPARROW_MODEL_DIR } = readSettings({ SPARROW_EDGE_URL: 'http://edge', SPARROW_JOIN_TOKEN: 'join' })
  tokenizer = await loadTokenizer(SPARROW_MODEL_DIR)
})

const EOS = 1

/** Plays ids in groups; each token's logprob is its index. Checks on the way that joined text only grows. */
const play = (run: Partial<Run>, ids: readonly number[], groups: readonly number[]): Delta[] => {
  const choice = new ChoiceText({ ...runRequest().run, ...run }, DEFAULT_CHAT_FORMAT, tokenizer.textBytes, 0)
  const deltas: Delta[] = []
  for (let at = 0, i = 0; at < ids.length; i++) {
    const next = ids.slice(at, at + (groups[i % groups.length] ?? 1))
    choice.tokens(next, run.topLogprobs === undefined ? undefined : next.map((_, k) => ({ logprob: at + k, top: [] })))
    deltas.push(...choice.take())
    at += next.length
  }
  choice.end('stop_token', ids.length)
  return [...deltas, ...choice.take()]
}

const textOf = (deltas: readonly Delta[], kind: 'content' | 'reasoning'): string =>
  deltas.map((delta) => (delta.kind === kind ? delta.text : '')).join('')

const tokensOf = (deltas: readonly Delta[], kind: 'content' | 'reasoning') =>
  deltas.flatMap((delta) => (delta.kind === kind ? (delta.logprobs ?? []) : []))

const piece = fc.constantFrom('a', 'ab', ' the cat', '\n\n', '🎉', 'é漢', '.', ' ', 'bb', '<', '｜DSML｜', 'stop')
const text = fc.array(piece, { maxLength: 25 }).map((pieces) => pieces.join(''))
const groups = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 })

test('the tokens of a text are its bytes, in reasoning and in content', async () => {
  await fc.assert(
    fc.asyncProperty(text, text, groups, async (thought, said, sizes) => {
      const { ids } = await tokenizer.encode(`${thought}</think>${said}`)
      const deltas = play({ thinking: true, topLogprobs: 0 }, [...ids, EOS], sizes)
      for (const [kind, wanted] of [
        ['reasoning', thought],
        ['content', said],
      ] as const) {
        expect(textOf(deltas, kind)).toBe(wanted)
        const tokens = tokensOf(deltas, kind)
        expect(Buffer.concat(tokens.map(({ bytes }) => bytes)).toString()).toBe(wanted)
        const order = tokens.map(({ logprob }) => logprob)
        expect(order).toEqual([...order].sort((a, b) => a - b))
      }
    }),
    { numRuns: 300 },
  )
})

test('of a text cut at a stop string, the tokens that began before the cut', async () => {
  const { ids } = await tokenizer.encode('the cat sat on the mat. stop here')
  const deltas = play({ stop: ['at. st'], topLogprobs: 0 }, [...ids], [1])
  expect(textOf(deltas, 'content')).toBe('the cat sat on the m')
  const bytes = Buffer.concat(tokensOf(deltas, 'content').map((token) => token.bytes)).toString()
  expect(bytes.startsWith('the cat sat on the m')).toBe(true)
  expect('the cat sat on the mat.'.startsWith(bytes)).toBe(true)
})

test('tool calls have no tokens; text before them has its own', async () => {
  const call =
    '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n' +
    '</｜DSML｜invoke>\n</｜DSML｜function_calls>'
  const { ids } = await tokenizer.encode(`Let me see.\n\n${call}`)
  const deltas = play({ topLogprobs: 0 }, [...ids, EOS], [3])
  expect(deltas.some((delta) => delta.kind === 'tool_call')).toBe(true)
  const bytes = Buffer.concat(tokensOf(deltas, 'content').map((token) => token.bytes)).toString()
  expect(bytes.trimEnd()).toBe('Let me see.')
})

test.each([
  ['length', undefined, 'length', '{"a": 1, "b": "two wor'],
  // The first call is whole: it would be made, and so would the second one.
  ['stop_string', 'wor', 'stop', '{"a": 1, "b": "two '],
] as const)(
  'a call that %s cuts off is told as far as it got, and not as one to make',
  async (reason, stop, finish, json) => {
    const one = '<｜DSML｜invoke name="f">\n</｜DSML｜invoke>\n'
    const two =
      '<｜DSML｜invoke name="g">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n' +
      '<｜DSML｜parameter name="b" string="true">two wor'
    const { ids } = await tokenizer.encode(`Well.\n\n<｜DSML｜function_calls>\n${one}${two}`)
    const run = { ...runRequest().run, stop: stop ? [stop] : [] }
    const choice = new ChoiceText(run, DEFAULT_CHAT_FORMAT, tokenizer.textBytes, 0)
    choice.tokens([...ids])
    choice.end(reason, ids.length)
    const deltas = choice.take()
    expect(textOf(deltas, 'content')).toBe('Well.')
    expect(deltas.filter((delta) => delta.kind === 'tool_arguments').map((delta) => delta.text)).toEqual(['{}', json])
    expect([choice.finish, choice.stop, choice.output]).toEqual([finish, stop, ids.length])
  },
)

/** The text before the stop string that is complete first; `from`: where stop strings begin to count. */
const cut = (whole: string, stops: readonly string[], from: number): string => {
  let best = { at: whole.length, end: Number.POSITIVE_INFINITY }
  for (const stop of stops) {
    const at = whole.indexOf(stop, from)
    const end = at + stop.length
    if (at >= 0 && (end < best.end || (end === best.end && at < best.at))) best = { at, end }
  }
  return whole.slice(0, best.at)
}

test('no part of a stop string shows, at any time, nor counts before min_tokens', async () => {
  const plain = fc
    .array(fc.constantFrom('a', 'ab', ' ab', 'b', '🎉', 'é', ' the'), { maxLength: 20 })
    .map((p) => p.join(''))
  const stops = fc.array(fc.constantFrom('ab', 'abb', 'b a', '🎉', 'éa', ' th'), { minLength: 1, maxLength: 3 })
  await fc.assert(
    fc.asyncProperty(plain, stops, groups, fc.integer({ min: 0, max: 6 }), async (said, stop, sizes, minTokens) => {
      const ids = [...(await tokenizer.encode(said)).ids]
      const free = Buffer.concat(ids.slice(0, minTokens).map((id) => tokenizer.textBytes[id] ?? Buffer.of()))
      // A character that is not whole at that point belongs to what follows.
      const from = new TextDecoder().decode(free, { stream: true }).length
      const wanted = cut(said, stop, from)
      const deltas = play({ stop, minTokens }, ids, sizes)
      let shown = ''
      for (const delta of deltas) {
        shown += textOf([delta], 'content')
        expect(wanted.startsWith(shown)).toBe(true)
      }
      expect(shown).toBe(wanted)
    }),
    { numRuns: 400 },
  )
})
