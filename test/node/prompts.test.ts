// Several prompts of one run at a node, and prompts that are repeated with their log-probabilities: one receipt for all of it.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { seedOf } from '../../gpu-node/choice.ts'
import type { SequenceSpec } from '../../gpu-node/engine/engine.ts'
import type { RunningNode } from '../../gpu-node/node.ts'
import { loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
import { completionChunkSchema, completionSchema } from '../../schema/dialects/completions_answer.ts'
import type { Receipt, RunRequest } from '../../schema/wire.ts'
import {
  chunksOf,
  post,
  runRequest,
  startEdge,
  startTestNode,
  type TestEdge,
  tempDir,
  testSettings,
  until,
} from './fixture.ts'
import { type Script, type ScriptedEngine, scriptedEngine } from './scripted_engine.ts'

let edge: TestEdge
let node: RunningNode
let engine: ScriptedEngine
let tokenizer: Tokenizer
const dir = tempDir()
const [BOS, EOS] = ['<｜begin▁of▁sentence｜>', 1]
const PROMPTS = ['One two', 'naïve €', 'x'] as const

beforeAll(async () => {
  edge = await startEdge()
  engine = scriptedEngine(() => ({ ids: [EOS] }))
  const settings = testSettings(edge.url, dir.path)
  tokenizer = await loadTokenizer(settings.SPARROW_MODEL_DIR)
  node = await startTestNode(settings, engine, edge)
})
afterAll(async () => {
  await node.drain()
  await edge.close()
  dir.remove()
})
beforeEach(() => {
  engine.submitted.length = 0
  engine.script = () => ({ ids: [EOS] })
})

const idsOf = async (text: string): Promise<number[]> => Array.from((await tokenizer.encode(text)).ids)
const textOf = ({ tokens }: SequenceSpec): string =>
  Buffer.concat(Array.from(tokens, (id) => tokenizer.textBytes[id] ?? Buffer.of())).toString()

/** A sequence plays the script of its prompt. */
const playFor = (scripts: Readonly<Record<string, Script>>): void => {
  engine.script = (spec) => scripts[textOf(spec).replace(BOS, '')] ?? { ids: [EOS] }
}

const several = (extra: Partial<RunRequest['run']> = {}, texts: readonly string[] = PROMPTS): RunRequest => {
  const [first, ...more] = texts.map((text) => ({
    prompt: BOS + text,
    ...(extra.echoText === undefined ? {} : { echoText: text }),
  }))
  return runRequest({ dialect: 'completions', raw: true, stream: false, ...extra, ...first, morePrompts: more })
}

const receiptOf = async ({ run }: RunRequest): Promise<Receipt> => {
  const mine = () => edge.receipts.filter((receipt) => receipt.requestId === run.requestId)
  await until('the receipt', () => mine().length > 0)
  expect(mine()).toHaveLength(1)
  return mine()[0] as Receipt
}

const whole = async (request: RunRequest) =>
  completionSchema.parse(await (await post(node, request)).json(), { reportInput: true })

const answered = async (request: RunRequest): Promise<RunRequest> => {
  await whole(request)
  return request
}

test('choices stand prompt by prompt, and one receipt sums all of them', async () => {
  const answers = ['first', 'another one', 'third of all']
  const ids = await Promise.all(answers.map(idsOf))
  playFor(Object.fromEntries(PROMPTS.map((text, i) => [text, { ids: [...(ids[i] ?? []), EOS], stepMs: 3 - i }])))
  const request = several({ n: 2, seed: '5' })
  const { choices, usage } = await whole(request)
  expect(choices.map(({ index, text }) => [index, text])).toEqual(
    [0, 0, 1, 1, 2, 2].map((p, index) => [index, answers[p]]),
  )
  const prompt = await Promise.all(PROMPTS.map((text) => idsOf(BOS + text)))
  const [promptTokens, outputTokens] = [prompt.flat().length, 2 * (ids.flat().length + 3)]
  expect(usage).toMatchObject({ prompt_tokens: promptTokens, completion_tokens: outputTokens })
  expect(await receiptOf(request)).toMatchObject({ hitTokens: 0, missTokens: promptTokens, outputTokens })
  // As each would be drawn if its prompt came alone.
  const seeds = engine.submitted.filter((spec) => textOf(spec) === BOS + PROMPTS[2]).map(({ seed }) => seed)
  expect(seeds).toEqual([0, 1].map((i) => seedOf(request.run, i)))
})

test('streamed under the same indices; equal prompts are answered differently', async () => {
  playFor({ x: { ids: [...(await idsOf('yes')), EOS] } })
  const request = several({ stream: true }, ['x', 'y', 'x'])
  const chunks = chunksOf(await (await post(node, request)).text()).map((chunk) => completionChunkSchema.parse(chunk))
  const textAt = (index: number): string =>
    chunks
      .flatMap(({ choices }) => choices)
      .filter((choice) => choice.index === index)
      .map(({ text }) => text)
      .join('')
  expect([0, 1, 2].map(textAt)).toEqual(['yes', '', 'yes'])
  const seeds = engine.submitted.filter((spec) => textOf(spec) === `${BOS}x`).map(({ seed }) => seed)
  expect(seeds).toEqual([0, 1].map((i) => seedOf(request.run, i)))
})

test('a client that leaves ends all prompts; those that never began cost nothing', async () => {
  const long = Array.from({ length: 900 }, () => 70)
  playFor({ x: { ids: long, stepMs: 2 }, y: { ids: [], queued: true } })
  const request = several({ stream: true }, ['x', 'y'])
  const leaving = new AbortController()
  const response = await post(node, request, { signal: leaving.signal })
  await response.body?.getReader().read()
  leaving.abort()
  const miss = (await idsOf(`${BOS}x`)).length
  expect(await receiptOf(request)).toMatchObject({ finish: 'cancelled', hitTokens: 0, missTokens: miss })
})

test('what the first of several prompts took stands in the receipt by itself where the edge asks for it', async () => {
  const [first, second] = ['one '.repeat(100), 'two '.repeat(200)] as const
  await receiptOf(await answered(several({}, [second])))
  const run = several({ n: 2 }, [first, second])
  const [firstTokens, secondTokens] = await Promise.all([first, second].map(async (t) => (await idsOf(BOS + t)).length))
  const hitTokens = Math.floor(((secondTokens ?? 0) - 1) / 64) * 64
  expect(await receiptOf(await answered({ ...run, countsFirstPrompt: true }))).toMatchObject({
    ...{ hitTokens, missTokens: (firstTokens ?? 0) + (secondTokens ?? 0) - hitTokens },
    firstPrompt: { hit: 0, miss: firstTokens },
  })
  expect(await receiptOf(await answered(several({}, [first, second])))).not.toHaveProperty('firstPrompt')
})

test('a prompt that is no prompt refuses the whole run', async () => {
  const long = await post(node, several({}, ['x', 'word '.repeat(5000)]))
  expect([long.status, await long.json()]).toMatchObject([413, { error: { code: 'context_length_exceeded' } }])
  const foreign = runRequest({ dialect: 'completions', raw: true, stream: false })
  const more = { ...foreign, run: { ...foreign.run, morePrompts: [{ prompt: '', promptTokens: [5, 2048] }] } }
  expect(await (await post(node, more)).json()).toMatchObject({ error: { param: 'prompt' } })
  expect(engine.submitted).toEqual([])
})

test.each([false, true])(
  'echo with log-probabilities, of texts: each answer begins with its own (stream: %s)',
  async (stream) => {
    playFor(Object.fromEntries(await Promise.all(PROMPTS.map(async (text) => [text, { ids: await idsOf('ok') }]))))
    const request = several({ echoText: '', topLogprobs: 1, n: 2, stream })
    const response = await post(node, request)
    const texts = new Array<string>(6).fill('')
    const scores = texts.map((): (number | null)[] => [])
    const tokens = texts.map((): string[] => [])
    const parts = stream
      ? chunksOf(await response.text()).map((chunk) => completionChunkSchema.parse(chunk))
      : [completionSchema.parse(await response.json())]
    for (const { index, text, logprobs } of parts.flatMap<(typeof parts)[number]['choices'][number]>(
      (p) => p.choices,
    )) {
      texts[index] += text
      scores[index]?.push(...(logprobs?.token_logprobs ?? []))
      tokens[index]?.push(...(logprobs?.tokens ?? []))
    }
    expect(texts).toEqual(PROMPTS.flatMap((text) => [`${text}ok`, `${text}ok`]))
    for (const [i, text] of PROMPTS.entries()) {
      const count = (await idsOf(text)).length
      // The engine says -2 of the second token behind the format's first one, and so on.
      const wanted = [null, ...Array.from({ length: count - 1 }, (_, at) => -2 - at)]
      expect([scores[2 * i], scores[2 * i + 1]]).toEqual([wanted, wanted])
      expect(tokens[2 * i]?.length).toBe(count)
    }
    const scored = engine.submitted.filter(({ promptLogprobs }) => promptLogprobs === true)
    expect(scored.map(textOf)).toEqual(PROMPTS.map((text) => BOS + text))
  },
)

test('echo of token ids is their text, and what comes first has no log-probability', async () => {
  engine.script = () => ({ ids: [EOS] })
  const promptTokens = await idsOf('€uro')
  const ids = { dialect: 'completions', raw: true, stream: false, prompt: '', promptTokens, echoTokens: true } as const
  const plain = await whole(runRequest(ids))
  expect(plain.choices[0]).toMatchObject({ text: '€uro', logprobs: null })
  const { choices } = await whole(runRequest({ ...ids, topLogprobs: 0 }))
  expect(choices[0]?.logprobs?.token_logprobs).toEqual([null, ...promptTokens.slice(1).map((_, i) => -1 - i)])
  expect(choices[0]?.logprobs?.top_logprobs[0]).toBeNull()
})

test('a character that the prompt begins and the answer ends is whole in the text', async () => {
  const ids = await idsOf('a🎉')
  engine.script = () => ({ ids: [...ids.slice(-1), EOS] })
  const promptTokens = ids.slice(0, -1)
  const echo = { dialect: 'completions', raw: true, stream: false, prompt: '', promptTokens, echoTokens: true } as const
  const { choices } = await whole(runRequest({ ...echo, topLogprobs: 0 }))
  expect(choices[0]?.text).toBe('a🎉')
  expect(choices[0]?.logprobs?.text_offset).toEqual(promptTokens.map((_, i) => Math.min(i, 2)))
})

test('of no tokens asked for none is shown or paid, and the prompt is scored', async () => {
  engine.script = () => ({ ids: [EOS] })
  const scored = runRequest({
    ...{ dialect: 'completions', raw: true, stream: false, prompt: `${BOS}One two`, echoText: 'One two' },
    ...{ topLogprobs: 0, maxTokens: 0 },
  })
  const { choices, usage } = await whole(scored)
  expect(choices[0]).toMatchObject({ text: 'One two', finish_reason: 'length' })
  const count = (await idsOf('One two')).length
  expect(choices[0]?.logprobs?.token_logprobs).toHaveLength(count)
  expect(usage).toMatchObject({ prompt_tokens: count + 1, completion_tokens: 0 })
  expect(await receiptOf(scored)).toMatchObject({ finish: 'length', outputTokens: 0, missTokens: count + 1 })
  engine.script = () => ({ ids: [70, 70, 70] })
  const plain = { dialect: 'completions', raw: true, stream: false, prompt: `${BOS}One`, maxTokens: 0 } as const
  expect((await whole(runRequest(plain))).choices[0]).toMatchObject({ text: '', finish_reason: 'length' })
})
