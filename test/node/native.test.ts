// The node over the engine it ships with and the embedded model: cached prefix, cancel within a step, stop strings, several
// runs at once. Skipped nowhere: the addon is built before any test runs.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openNativeEngine } from '../../gpu-node/engine/native.ts'
import { type RunningNode, startNode } from '../../gpu-node/node.ts'
import type { Receipt } from '../../schema/wire.ts'
import { contentOf, post, runRequest, startEdge, type TestEdge, tempDir, testSettings, until } from './fixture.ts'

let edge: TestEdge
let node: RunningNode
const dir = tempDir()

beforeAll(async () => {
  edge = await startEdge()
  node = await startNode(
    testSettings(edge.url, dir.path),
    ({ SPARROW_MODEL_DIR: modelDir }, { tokenBytes }) => openNativeEngine({ modelDir, tokenBytes }),
    () => {},
  )
  await until('readiness', () => edge.heartbeats.length > 0)
})
afterAll(async () => {
  await node.drain()
  await edge.close()
  dir.remove()
})

const receiptOf = async (requestId: string): Promise<Receipt> => {
  await until('the receipt', () => edge.receipts.some((receipt) => receipt.requestId === requestId))
  return edge.receipts.find((receipt) => receipt.requestId === requestId) as Receipt
}

const ask = (text: string) => `<｜begin▁of▁sentence｜><｜User｜>${text}<｜Assistant｜></think>`

test('the same long prompt twice: same text, cached pages, fewer tokens computed', async () => {
  const prompt = ask(`${'The city lies on a river and has a port. '.repeat(50)}What is the capital of France?`)
  const once = async (cacheSalt: string) => {
    const request = runRequest({ prompt, maxTokens: 24 }, { cacheSalt })
    const text = contentOf(await (await post(node, request)).text())
    return { text, receipt: await receiptOf(request.run.requestId) }
  }
  const first = await once('a')
  const second = await once('a')
  const other = await once('b')
  expect(second.text).toBe(first.text)
  expect(other.text).toBe(first.text)
  expect(first.receipt.hitTokens).toBe(0)
  expect(second.receipt.hitTokens).toBeGreaterThan(256)
  expect(second.receipt.hitTokens % 64).toBe(0)
  expect(second.receipt.hitTokens + second.receipt.missTokens).toBe(first.receipt.missTokens)
  expect(other.receipt.hitTokens).toBe(0)
})

test('a disconnect stops the engine', async () => {
  const request = runRequest({ prompt: ask('Tell me a story.'), maxTokens: 3500, temperature: 2 })
  const abort = new AbortController()
  const response = await post(node, request, { signal: abort.signal })
  await response.body?.getReader().read()
  abort.abort()
  const receipt = await receiptOf(request.run.requestId)
  const health = (await (await fetch(`${node.address}/healthz`)).json()) as { running: number }
  expect(health.running).toBe(0)
  // A model may end by itself before it is cancelled; then there was nothing to stop.
  expect(['cancelled', 'stop']).toContain(receipt.finish)
  expect(receipt.outputTokens).toBeLessThan(3500)
})

test('runs at once each get their own answer', async () => {
  const prompts = ['What is the capital of France?', 'What is the capital of Italy?', 'What is 2 + 2?', 'Hello']
  const answer = async (text: string) =>
    contentOf(await (await post(node, runRequest({ prompt: ask(text), maxTokens: 20 }))).text())
  const together = await Promise.all(prompts.map(answer))
  const alone: string[] = []
  for (const prompt of prompts) alone.push(await answer(prompt))
  expect(together).toEqual(alone)
})

test('a stop string is cut from the text and its tokens are counted', async () => {
  const prompt = ask('What is the capital of France?')
  const text = contentOf(await (await post(node, runRequest({ prompt, maxTokens: 30 }))).text())
  const stop = text.slice(4, 7)
  expect(stop.length).toBe(3)
  const request = runRequest({ prompt, maxTokens: 30, stop: [stop] })
  expect(contentOf(await (await post(node, request)).text())).toBe(text.slice(0, text.indexOf(stop)))
  expect(await receiptOf(request.run.requestId)).toMatchObject({ finish: 'stop' })
})

test('a grammar holds the answer; one that cannot be used is refused before any work', async () => {
  const grammar = { text: 'root ::= "yes" | "no"', marks: ['｜DSML｜', '</think>'] }
  const request = runRequest({ prompt: ask('Tell me a story.'), temperature: 1, grammar })
  expect(['yes', 'no']).toContain(contentOf(await (await post(node, request)).text()))
  expect((await receiptOf(request.run.requestId)).finish).toBe('stop')
  const bad = await post(node, runRequest({ grammar: { ...grammar, text: 'root ::= nothing' } }))
  expect(bad.status).toBe(400)
})

test('a reader that leaves a masked run stops it', async () => {
  const grammar = { text: 'root ::= [a-z ]*', marks: [] }
  const request = runRequest({
    prompt: ask('Tell me a story.'),
    temperature: 2,
    maxTokens: 3500,
    grammar,
    ignoreEos: true,
  })
  const abort = new AbortController()
  const response = await post(node, request, { signal: abort.signal })
  await response.body?.getReader().read()
  abort.abort()
  expect((await receiptOf(request.run.requestId)).finish).toBe('cancelled')
})
