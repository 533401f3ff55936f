// The order billing stands on, with a disk that answers when the test says so: no byte before OPEN is durable, no finish
// before CLOSE is, and nothing more once the disk fails.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Admission } from '../../gpu-node/admission.ts'
import type { Workshop } from '../../gpu-node/generate.ts'
import { Grammars } from '../../gpu-node/grammar.ts'
import { Journal, type Meter } from '../../gpu-node/journal.ts'
import { Metrics, PrefillSpeed } from '../../gpu-node/metrics.ts'
import type { RunningNode } from '../../gpu-node/node.ts'
import { createRunServer } from '../../gpu-node/server.ts'
import { loadTokenizer } from '../../gpu-node/tokenizer.ts'
import { DEFAULT_CHAT_FORMAT } from '../../schema/chat/index.ts'
import { DISPATCH_SECRET, post, runRequest, tempDir, testSettings } from './fixture.ts'
import { scriptedEngine } from './scripted_engine.ts'

let dir: ReturnType<typeof tempDir>
let journal: Journal
let server: Server
let node: RunningNode
let opened: PromiseWithResolvers<void>
let closed: PromiseWithResolvers<void>

beforeEach(async () => {
  dir = tempDir()
  opened = Promise.withResolvers()
  closed = Promise.withResolvers()
  journal = await Journal.start({ dir: join(dir.path, 'journal'), nodeId: 'node-test', onFailure: () => {} })
  const meter: Meter = {
    open: async (run) => {
      await journal.open(run)
      await opened.promise
    },
    close: async (key, closing) => {
      const receipt = await journal.close(key, closing)
      await closed.promise
      return receipt
    },
    progress: (key, counts) => journal.progress(key, counts),
    hasSeen: (key) => journal.hasSeen(key),
    ...{ pending: journal.pending, openRuns: 0 },
  }
  const tokenizer = await loadTokenizer(testSettings('http://127.0.0.1', dir.path).SPARROW_MODEL_DIR)
  const engine = scriptedEngine(() => ({ ids: [70, 71, 72, 1] }))
  const shop: Workshop = {
    nodeId: 'node-test',
    model: 'sparrow-mini',
    chatFormat: DEFAULT_CHAT_FORMAT,
    engine,
    tokenizer,
    journal: meter,
    admission: new Admission(8, 1),
    grammars: new Grammars({ tokenizer, ...engine.info }),
    metrics: new Metrics(),
    prefillSpeed: new PrefillSpeed(),
    onClosed: () => {},
  }
  const dispatchKeys = () => [new TextEncoder().encode(DISPATCH_SECRET)]
  const { run } = createRunServer({ shop, dispatchKeys, pendingMax: 100, stallMs: 10_000, keepAliveMs: 10_000 })
  server = createServer((request, response) => void run(request, response))
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  node = { nodeId: 'node-test', address, drain: async () => {} }
})

afterEach(async () => {
  server.closeAllConnections()
  server.close()
  await journal.stop()
  dir.remove()
})

const soon = <T>(promise: Promise<T>): Promise<T | 'nothing yet'> =>
  Promise.race([promise, new Promise<'nothing yet'>((done) => setTimeout(() => done('nothing yet'), 150))])

test.each([true, false])('no head before OPEN is durable (stream: %s)', async (stream) => {
  closed.resolve()
  const answer = post(node, runRequest({ stream, includeUsage: stream }))
  expect(await soon(answer)).toBe('nothing yet')
  opened.resolve()
  const response = await answer
  expect(response.status).toBe(200)
  expect(await response.text()).toContain('"finish_reason":"stop"')
})

test('tokens flow before CLOSE is durable, the finish does not', async () => {
  opened.resolve()
  const response = await post(node, runRequest())
  let text = ''
  const end = (async () => {
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
    for (let piece = await reader?.read(); piece?.value !== undefined; piece = await reader?.read()) text += piece.value
  })()
  await vi.waitFor(() => expect(text).toContain('"content"'), 30_000)
  expect(await soon(end)).toBe('nothing yet')
  expect(text).not.toContain('"finish_reason":"stop"')
  expect(text).not.toContain('[DONE]')
  closed.resolve()
  await end
  expect(text).toContain('"finish_reason":"stop"')
  expect(text.endsWith('[DONE]\n\n')).toBe(true)
})

test('no whole answer before CLOSE is durable', async () => {
  opened.resolve()
  const answer = post(node, runRequest({ stream: false, includeUsage: false }))
  expect(await soon(answer)).toBe('nothing yet')
  closed.resolve()
  expect((await answer).status).toBe(200)
})

test('a disk that fails at CLOSE breaks the stream without a finish', async () => {
  opened.resolve()
  closed.promise.catch(() => {})
  closed.reject(new Error('disk full'))
  const response = await post(node, runRequest())
  await expect(response.text()).rejects.toThrow()
})

test('a disk that fails at OPEN lets nothing out', async () => {
  opened.promise.catch(() => {})
  opened.reject(new Error('disk full'))
  closed.resolve()
  await expect(post(node, runRequest())).rejects.toThrow()
})
