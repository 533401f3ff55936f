// The node under the real engine with little memory: sockets destroyed at random, deadlines, a full queue, SIGTERM's drain with
// runs that still wait.
import { afterEach, expect, test } from 'vitest'
import { type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { type RunningNode, startNode } from '../../gpu-node/node.ts'
import type { Receipt } from '../../schema/wire.ts'
import {
  contentOf,
  post,
  postUnread,
  runRequest,
  startEdge,
  type TestEdge,
  tempDir,
  testSettings,
  until,
} from './fixture.ts'

interface World {
  readonly edge: TestEdge
  readonly node: RunningNode
  readonly engine: NativeEngine
  close(): Promise<void>
}

const worlds: World[] = []
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.close()
})

const start = async (options: { kvPages?: number; maxRunning?: number; isa?: string }, extra = {}): Promise<World> => {
  const edge = await startEdge()
  const dir = tempDir()
  let engine: NativeEngine | undefined
  const node = await startNode(
    testSettings(edge.url, dir.path, { SPARROW_DRAIN_SECONDS: '20', ...extra }),
    async ({ SPARROW_MODEL_DIR: modelDir }, { tokenBytes }) => {
      engine = await openNativeEngine({ modelDir, tokenBytes, ...options })
      return engine
    },
    () => {},
  )
  await until('readiness', () => edge.heartbeats.length > 0)
  let drained: Promise<void> | undefined
  const drain = () => {
    drained ??= node.drain()
    return drained
  }
  const close = async () => {
    await drain()
    await edge.close()
    dir.remove()
  }
  const world = { edge, node: { ...node, drain }, engine: engine as NativeEngine, close }
  worlds.push(world)
  return world
}

const receiptOf = async (edge: TestEdge, requestId: string): Promise<Receipt> => {
  await until('the receipt', () => edge.receipts.some((receipt) => receipt.requestId === requestId), 30_000)
  return edge.receipts.find((receipt) => receipt.requestId === requestId) as Receipt
}

/** One run at a time, on kernels that take their time: what is to wait does wait. */
const SLOW = { maxRunning: 1, isa: 'reference' }

const ask = (text: string) => `<｜begin▁of▁sentence｜><｜User｜>${text}<｜Assistant｜></think>`
const talkative = { temperature: 1, ignoreEos: true, maxTokens: 200 }
const longText = (i: number) => `${`${i} The city lies on a river and has a port. `.repeat(10)}Tell me a story.`

test('sockets destroyed at random moments: one receipt each, and no page, place or sequence is left', async () => {
  const { edge, node, engine } = await start({ kvPages: 40, maxRunning: 8 })
  const requests = Array.from({ length: 60 }, (_, i) =>
    runRequest(
      { ...talkative, prompt: ask(longText(i % 7)), stream: i % 3 > 0, includeUsage: i % 3 > 0, seed: String(i) },
      { accountId: `account ${i % 3}`, cacheSalt: `salt ${i % 3}` },
    ),
  )
  await Promise.all(
    requests.map(async (request, i) => {
      await new Promise((done) => setTimeout(done, 15 * i))
      const abort = new AbortController()
      // Half of them leave after some time, the others after some of the answer.
      if (i % 2 === 0 || !request.run.stream) setTimeout(() => abort.abort(), (i * 37) % 400)
      await post(node, request, { signal: abort.signal })
        .then(async (response) => {
          const reader = response.body?.getReader()
          for (let reads = i % 11; reads > 0 && !(await reader?.read())?.done; ) reads--
          abort.abort()
        })
        .catch(() => {})
    }),
  )
  await until('an empty engine', () => engine.stats().running + engine.stats().waiting === 0, 30_000)
  expect(engine.stats().kvPagesUsed).toBe(0)
  expect(engine.integrity()).toBe('')
  // The engine is done with a run before its receipt is on disk.
  const health = async () =>
    (await (await fetch(`${node.address}/healthz`)).json()) as { running: number; waiting: number }
  await expect.poll(health, { timeout: 30_000 }).toMatchObject({ running: 0, waiting: 0 })
  await node.drain()
  const counts = new Map<string, number>()
  for (const { requestId } of edge.receipts) counts.set(requestId, (counts.get(requestId) ?? 0) + 1)
  expect([...counts.values()].every((count) => count === 1)).toBe(true)
  expect(edge.receipts.some((receipt) => receipt.finish === 'cancelled')).toBe(true)
})

test('a deadline: what waits is refused and free, what runs ends with what it has', async () => {
  const { edge, node, engine } = await start(SLOW)
  const runs = runRequest({ ...talkative, prompt: ask('Hello'), maxTokens: 3900, deadlineMs: 4000 })
  const running = post(node, runs)
  await until('the first run', () => engine.stats().running === 1)
  const waits = runRequest({ ...talkative, prompt: ask('Hello'), deadlineMs: 50 })
  const refused = await post(node, waits)
  expect(refused.status).toBe(504)
  expect(await refused.json()).toMatchObject({ error: { code: 'deadline_exceeded' } })
  expect(await receiptOf(edge, waits.run.requestId)).toMatchObject({ missTokens: 0, outputTokens: 0 })
  const text = await (await running).text()
  expect(text).toContain('"finish_reason":"length"')
  expect(contentOf(text)).not.toBe('')
  const receipt = await receiptOf(edge, runs.run.requestId)
  expect(receipt).toMatchObject({ finish: 'length' })
  expect(receipt.outputTokens).toBeGreaterThan(0)
  expect(receipt.outputTokens).toBeLessThan(3900)
})

test('a deadline in prefill: what was computed is charged, as it stays in the cache of whoever asked', async () => {
  const { edge, node } = await start(SLOW, { SPARROW_STEP_TOKENS: '32' })
  const prompt = ask('The city lies on a river and has a port. '.repeat(200))
  const asked = runRequest({ prompt, stream: false, includeUsage: false, deadlineMs: 4000 })
  const refused = await post(node, asked)
  expect(refused.status).toBe(504)
  const receipt = await receiptOf(edge, asked.run.requestId)
  expect(receipt).toMatchObject({ finish: 'cancelled', outputTokens: 0, firstTokenAt: null })
  expect(receipt.missTokens).toBeGreaterThan(0)
})

test('drain: what runs and what waits is finished, what is new is refused', async () => {
  const { edge, node, engine } = await start({ maxRunning: 1 }, { SPARROW_DRAIN_SECONDS: '100' })
  // The first goes on for long enough for the others to come, also on a machine that is slow with them.
  const lengths = [3000, 60, 60]
  const requests = lengths.map((maxTokens, i) =>
    runRequest({ prompt: ask(`Tell me ${i}`), maxTokens, ignoreEos: true }),
  )
  const answers = requests.map(async (request) => (await post(node, request)).text())
  await until('three runs', () => engine.stats().waiting + engine.stats().running === 3)
  const drained = node.drain()
  expect((await post(node, runRequest())).status).toBe(503)
  for (const text of await Promise.all(answers)) expect(text).toContain('"finish_reason":"length"')
  await drained
  for (const [i, { run }] of requests.entries())
    expect(await receiptOf(edge, run.requestId)).toMatchObject({ outputTokens: lengths[i] })
}, 120_000)

/** Some 10 MB: more than the sockets hold, so that most of it waits in the node for its reader. */
const MUCH = { maxTokens: 3900, ignoreEos: true, topLogprobs: 20 }

test('drain: a reader behind its finished run gets the rest', async () => {
  const { edge, node } = await start({})
  const request = runRequest(MUCH)
  const answer = await postUnread(node, request)
  await receiptOf(edge, request.run.requestId)
  const drained = node.drain()
  await new Promise((done) => setTimeout(done, 300))
  let text = ''
  for await (const piece of answer.setEncoding('utf8')) text += piece
  expect(text.slice(-20)).toContain('[DONE]')
  await drained
})

test('drain: a reader that never comes is left when the time is over', async () => {
  const { edge, node } = await start({}, { SPARROW_DRAIN_SECONDS: '1' })
  const request = runRequest(MUCH)
  const answer = await postUnread(node, request)
  answer.on('error', () => {})
  await receiptOf(edge, request.run.requestId)
  const began = Date.now()
  await node.drain()
  // A timer may come a moment early.
  expect(Date.now() - began).toBeGreaterThan(990)
  expect(answer.complete).toBe(false)
})

test('an account that fills its part of the queue gets 503 and Retry-After; others do not', async () => {
  const { node, engine } = await start(SLOW, { SPARROW_QUEUE_MAX: '4' })
  const leave = new AbortController()
  const hold = (i: number) => {
    const run = runRequest({ ...talkative, prompt: ask(`Story ${i}`), maxTokens: 3000 }, { accountId: 'greedy' })
    return post(node, run, leave).catch(() => {})
  }
  const held = [hold(0)]
  await until('a run', () => engine.stats().running === 1)
  held.push(hold(1), hold(2)) // together they are all that the account may have waiting
  await until('a full part', () => engine.stats().waiting === 2)
  const refused = await post(node, runRequest({}, { accountId: 'greedy' }))
  expect(refused.status).toBe(503)
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
  const other = post(node, runRequest({ maxTokens: 2 }, { accountId: 'modest' }))
  await until('another account', () => engine.stats().waiting === 3)
  leave.abort()
  expect((await other).status).toBe(200)
  await (await other).text()
  await Promise.all(held)
})
