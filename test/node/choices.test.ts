// n choices of one prompt at a node: one request and one receipt, the prompt counted once, outputs summed, all ended together.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { seedOf } from '../../gpu-node/choice.ts'
import type { RunningNode } from '../../gpu-node/node.ts'
import { loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
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
let promptTokens = 0
const dir = tempDir()
const EOS = 1

beforeAll(async () => {
  edge = await startEdge()
  engine = scriptedEngine(() => ({ ids: [EOS] }))
  const settings = testSettings(edge.url, dir.path)
  tokenizer = await loadTokenizer(settings.SPARROW_MODEL_DIR)
  node = await startTestNode(settings, engine, edge)
  promptTokens = (await tokenizer.encode(runRequest().run.prompt)).ids.length
})
afterAll(async () => {
  await node.drain()
  await edge.close()
  dir.remove()
})
beforeEach(() => {
  engine.submitted.length = 0
  engine.cancels = 0
})

const idsOf = async (text: string): Promise<number[]> => Array.from((await tokenizer.encode(text)).ids)

/** The nth sequence submitted plays the nth script. */
const play = (scripts: readonly Script[]): void => {
  engine.script = () => scripts[engine.submitted.length - 1] ?? { ids: [EOS] }
}

const receiptOf = async ({ run }: RunRequest): Promise<Receipt> => {
  const mine = () => edge.receipts.filter((receipt) => receipt.requestId === run.requestId)
  await until('the receipt', () => mine().length > 0)
  expect(mine()).toHaveLength(1)
  return mine()[0] as Receipt
}

interface Chunk {
  readonly choices: { index: number; delta: { role?: string; content?: string }; finish_reason: string | null }[]
  readonly usage: { prompt_tokens: number; completion_tokens: number } | null
}

test('streamed: each choice under its index, one usage, one receipt', async () => {
  const texts = ['first answer', 'another one, longer than that', 'x']
  const ids = await Promise.all(texts.map(idsOf))
  play(ids.map((own) => ({ ids: [...own, EOS], stepMs: 1 })))
  const request = runRequest({ n: 3, seed: '77' })
  const chunks = chunksOf(await (await post(node, request)).text()) as unknown as Chunk[]
  const seen = texts.map((_, i) => chunks.flatMap(({ choices }) => choices).filter(({ index }) => index === i))
  expect(seen.map((choice) => choice[0]?.delta.role)).toEqual(['assistant', 'assistant', 'assistant'])
  expect(seen.map((choice) => choice.map(({ delta }) => delta.content ?? '').join(''))).toEqual(texts)
  expect(seen.map((choice) => choice.filter((one) => one.finish_reason !== null).length)).toEqual([1, 1, 1])
  const output = ids.reduce((sum, own) => sum + own.length + 1, 0)
  expect(chunks.at(-1)?.usage).toMatchObject({ prompt_tokens: promptTokens, completion_tokens: output })
  expect(await receiptOf(request)).toMatchObject({ hitTokens: 0, missTokens: promptTokens, outputTokens: output })
  expect(engine.submitted.map(({ seed }) => seed)).toEqual([0, 1, 2].map((i) => seedOf(request.run, i)))
  expect(new Set(engine.submitted.map(({ seed }) => seed)).size).toBe(3)
  expect(engine.submitted[0]?.seed).toBe(77n)
})

test('whole: the choices in order, each with its own reason', async () => {
  play([{ ids: await idsOf('one two three four five') }, { ids: [...(await idsOf('no')), EOS] }])
  const request = runRequest({ n: 2, stream: false, includeUsage: false, maxTokens: 3 })
  const body = (await (await post(node, request)).json()) as {
    choices: { index: number; finish_reason: string; message: { content: string } }[]
  }
  expect(body.choices.map(({ index, finish_reason }) => [index, finish_reason])).toEqual([
    [0, 'length'],
    [1, 'stop'],
  ])
  expect(body.choices[1]?.message.content).toBe('no')
  expect((await receiptOf(request)).finish).toBe('length')
})

test('a prompt is counted once, though all but the first find its pages', async () => {
  play([{ ids: [50, EOS] }, { ids: [51, EOS] }])
  const prompt = `<｜begin▁of▁sentence｜><｜User｜>${'the cat sat on the mat. '.repeat(40)}<｜Assistant｜></think>`
  const request = runRequest({ prompt, n: 2 })
  await (await post(node, request)).text()
  const missTokens = (await idsOf(prompt)).length
  expect(await receiptOf(request)).toMatchObject({ hitTokens: 0, missTokens, outputTokens: 4 })
})

test('tool calls of two choices have ids of their own', async () => {
  const call = [
    '<｜DSML｜function_calls>\n<｜DSML｜invoke name="add">\n',
    '<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
  ].join('')
  const ids = [...(await idsOf(call)), EOS]
  play([{ ids }, { ids }])
  const body = (await (await post(node, runRequest({ n: 2, stream: false, includeUsage: false }))).json()) as {
    choices: { message: { tool_calls: { id: string }[] } }[]
  }
  const named = body.choices.flatMap(({ message }) => message.tool_calls.map(({ id }) => id))
  expect([named.length, new Set(named).size]).toEqual([2, 2])
})

test('the others are asked of the engine once the prompt is computed', async () => {
  play([{ ids: [50, 51, 52, EOS], stepMs: 30 }])
  const answer = post(node, runRequest({ n: 4 }))
  await until('the first sequence', () => engine.submitted.length === 1)
  await until('the others', () => engine.submitted.length === 4)
  expect(await (await answer).text()).toContain('[DONE]')
})

const long = Array.from({ length: 900 }, () => 70)

test('a client that leaves ends all of them, and pays for what was sampled', async () => {
  play([0, 1, 2].map(() => ({ ids: long, stepMs: 2 })))
  const request = runRequest({ n: 3 })
  const leaving = new AbortController()
  const response = await post(node, request, { signal: leaving.signal })
  await response.body?.getReader().read()
  await until('all three', () => engine.submitted.length === 3)
  leaving.abort()
  const receipt = await receiptOf(request)
  expect(receipt).toMatchObject({ finish: 'cancelled', missTokens: promptTokens })
  expect(receipt.outputTokens).toBeGreaterThan(0)
  expect(receipt.outputTokens).toBeLessThan(3 * long.length)
  expect(engine.cancels).toBeGreaterThanOrEqual(3)
})

test('a client that leaves in the queue asks for no more of them', async () => {
  play([{ ids: [], queued: true }])
  const request = runRequest({ n: 3 })
  const leaving = new AbortController()
  const answer = post(node, request, { signal: leaving.signal }).catch(() => undefined)
  await until('the first sequence', () => engine.submitted.length === 1)
  leaving.abort()
  await answer
  expect(await receiptOf(request)).toMatchObject({ finish: 'cancelled', missTokens: 0, outputTokens: 0 })
  expect(engine.submitted).toHaveLength(1)
})

test('one choice that fails fails the run: nothing is charged', async () => {
  play([
    { ids: long, stepMs: 1 },
    { ids: [50], fails: true },
  ])
  const request = runRequest({ n: 2 })
  expect(await (await post(node, request)).text()).toContain('"code":"internal_error"')
  expect(await receiptOf(request)).toMatchObject({ finish: 'error', missTokens: 0, outputTokens: 0 })
})

test('a bias on a token that the model lacks is refused by name', async () => {
  const response = await post(node, runRequest({ logitBias: { 999999: 1 } }))
  expect(response.status).toBe(422)
  expect(await response.json()).toMatchObject({ error: { code: 'invalid_parameter', param: 'logit_bias' } })
})
