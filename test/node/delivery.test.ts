// From CLOSE to acknowledgement: an edge that is down, fails, forgets the node or refuses; a node that is killed, drains or
// starts again. Every receipt arrives, none is billed twice, none is lost.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { StartError } from '../../gpu-node/config.ts'
import { type RunningNode, startNode } from '../../gpu-node/node.ts'
import {
  DISPATCH_SECRET,
  JOIN_TOKEN,
  post,
  runRequest,
  startEdge,
  startTestNode,
  type TestEdge,
  tempDir,
  testSettings,
  until,
} from './fixture.ts'
import { type Script, scriptedEngine } from './scripted_engine.ts'

let dir: ReturnType<typeof tempDir>
let edge: TestEdge
const nodes: RunningNode[] = []

beforeEach(async () => {
  dir = tempDir()
  edge = await startEdge()
})
afterEach(async () => {
  for (const node of nodes.splice(0)) await node.drain()
  await edge.close()
  dir.remove()
})

const EOS = 1
const boot = async (script: Script = { ids: [70, 71, EOS] }, extra: Record<string, string> = {}) => {
  const node = await startTestNode(
    testSettings(edge.url, dir.path, extra),
    scriptedEngine(() => script),
    edge,
  )
  nodes.push(node)
  return node
}

const serve = async (node: RunningNode): Promise<string> => {
  const request = runRequest()
  await (await post(node, request)).text()
  return request.run.requestId
}

const delivered = (id: string) => edge.receipts.filter((receipt) => receipt.requestId === id).length

test('an edge that fails gets the receipt again until it acknowledges it', async () => {
  const node = await boot()
  edge.failures = [500, 'drop', 503]
  const id = await serve(node)
  await until('the receipt', () => delivered(id) === 1)
  await new Promise((done) => setTimeout(done, 300))
  expect(edge.deliveries.get(id)).toBe(2)
  expect(delivered(id)).toBe(1)
})

test('an edge that was away gets what it missed, in segments of at most 100', async () => {
  const node = await boot()
  const { port } = new URL(edge.url)
  await edge.close()
  const ids = await Promise.all(Array.from({ length: 30 }, () => serve(node)))
  edge = await startEdge(Number(port))
  await until('all receipts', () => ids.every((id) => delivered(id) === 1), 20_000)
  expect(edge.registrations.length).toBeGreaterThan(0)
})

test('a refused receipt is kept in the dead-letter file and holds up no other', async () => {
  const node = await boot()
  edge.failures = [500]
  const request = runRequest()
  edge.refuse.add(request.run.requestId)
  await (await post(node, request)).text()
  const id = await serve(node)
  await until('the other receipt', () => delivered(id) === 1)
  const file = join(dir.path, 'refused_receipts.jsonl')
  await until('the dead letter', () => existsSync(file) && readFileSync(file, 'utf8').endsWith('\n'))
  const { receipt, reason } = JSON.parse(readFileSync(file, 'utf8'))
  expect(reason).toBe('scripted')
  expect(receipt).toMatchObject({ requestId: request.run.requestId, outputTokens: 3, finish: 'stop' })
})

test('an edge that forgot the node is told again who it is', async () => {
  await boot()
  edge.heartbeatStatus = 404
  const before = edge.registrations.length
  await until('another registration', () => edge.registrations.length > before)
  edge.heartbeatStatus = 200
  const beats = edge.heartbeats.length
  await until('heartbeats', () => edge.heartbeats.length > beats + 1)
})

test('a secret that the edge replaced is learned by a heartbeat; the one before is taken for a minute more', async () => {
  const node = await boot()
  const [now, other] = ['n'.repeat(43), 'o'.repeat(43)]
  edge.dispatchSecret = now
  const statusBy = async (secret: string) => (await post(node, runRequest(), { secret })).status
  await vi.waitUntil(async () => (await statusBy(now)) === 200, { timeout: 30_000, interval: 20 })
  expect([await statusBy(DISPATCH_SECRET), await statusBy(other)]).toEqual([200, 401])
  const time = performance.now()
  vi.spyOn(performance, 'now').mockReturnValue(time + 60_000)
  expect([await statusBy(now), await statusBy(DISPATCH_SECRET)]).toEqual([200, 401])
  vi.restoreAllMocks()
})

test('a node that is removed while it runs ends its runs, asks no more, and their receipts arrive', async () => {
  const node = await boot()
  edge.removed = true
  await until('it to be told', () => edge.toldSo > 0)
  const ids = [await serve(node), await serve(node)]
  await until('the receipts', () => ids.every((id) => delivered(id) === 1))
  expect(await (await fetch(`${node.address}/readyz`)).json()).toMatchObject({ reasons: ['not_registered'] })
  nodes.pop()
  await node.drain()
  expect(edge.toldSo).toBe(1)
})

test('a removed node that starts again delivers what its journal kept', async () => {
  const node = await boot()
  edge.failures = new Array(1000).fill(500)
  const id = await serve(node)
  nodes.pop()
  await node.drain()
  expect(delivered(id)).toBe(0)
  edge.failures = []
  edge.removed = true
  const again = await startNode(
    testSettings(edge.url, dir.path),
    async () => scriptedEngine(() => ({ ids: [EOS] })),
    () => {},
  )
  nodes.push(again)
  await until('the receipt', () => delivered(id) === 1)
  expect(edge.toldSo).toBe(1)
})

test('what merely answers as if the node were gone is asked again', async () => {
  await boot()
  edge.heartbeatStatus = 410
  const beats = edge.heartbeats.length
  await until('heartbeats', () => edge.heartbeats.length > beats + 1)
})

test('drain: no new runs, the running one ends, the edge hears of it, receipts arrive', async () => {
  const { promise: heard, resolve } = Promise.withResolvers<void>()
  const script = { ids: [...new Array(100).fill(70), EOS], pauses: { at: 1, until: heard } }
  const node = await boot(script, { SPARROW_DRAIN_SECONDS: '50' })
  const request = runRequest()
  const answer = await post(node, request)
  const drained = node.drain()
  nodes.pop()
  const refused = await post(node, runRequest())
  expect(refused.status).toBe(503)
  expect(((await refused.json()) as { error: { code: string } }).error.code).toBe('node_draining')
  expect((await fetch(`${node.address}/healthz`)).status).toBe(503)
  await until('the draining heartbeat', () => edge.heartbeats.at(-1)?.draining === true)
  resolve()
  expect((await answer.text()).endsWith('[DONE]\n\n')).toBe(true)
  await drained
  expect(delivered(request.run.requestId)).toBe(1)
  expect(edge.receipts.at(-1)).toMatchObject({ finish: 'stop', outputTokens: 101 })
  await expect(fetch(`${node.address}/healthz`)).rejects.toThrow()
})

test('a run that outlasts the drain ends with an error frame and costs nothing', async () => {
  const script = { ids: new Array(4000).fill(70), stepMs: 5 }
  const node = await boot(script, { SPARROW_DRAIN_SECONDS: '0' })
  const request = runRequest()
  const answer = await post(node, request)
  const text = answer.text()
  nodes.pop()
  await node.drain()
  expect(await text).toContain('"code":"node_draining"')
  // With the time of its head, which tells the edge that no other node is being asked: the hold ends with it.
  const told = { missTokens: 0, outputTokens: 0, firstTokenAt: expect.any(Number) }
  expect(edge.receipts.at(-1)).toMatchObject({ finish: 'error', ...told })
})

test('a state directory that cannot be made is told in one line', async () => {
  const file = join(dir.path, 'file')
  writeFileSync(file, '')
  const started = startNode(
    testSettings(edge.url, join(file, 'state')),
    async () => scriptedEngine(() => ({ ids: [] })),
    () => {},
  )
  await expect(started).rejects.toThrow(/state cannot be written: .*Choose another SPARROW_STATE_DIR/)
  await expect(started).rejects.toBeInstanceOf(StartError)
})

test.each([
  ['identity.json', (text: string) => text.replace(/"d":"./, (d) => `${d.slice(0, -1)}${d.endsWith('A') ? 'B' : 'A'}`)],
  ['journal', undefined],
])('%s that is damaged is told in one line', async (name, change) => {
  await (await boot()).drain()
  nodes.pop()
  const path = join(dir.path, name)
  if (change) writeFileSync(path, change(readFileSync(path, 'utf8')))
  else {
    rmSync(path, { recursive: true })
    writeFileSync(path, '')
  }
  const started = startNode(
    testSettings(edge.url, dir.path),
    async () => scriptedEngine(() => ({ ids: [] })),
    () => {},
  )
  await expect(started).rejects.toBeInstanceOf(StartError)
  await expect(started).rejects.toThrow(name)
})

test('one state directory serves one node, and keeps its name', async () => {
  const node = await boot()
  const again = startNode(
    testSettings(edge.url, dir.path),
    async () => scriptedEngine(() => ({ ids: [] })),
    () => {},
  )
  await expect(again).rejects.toThrow(StartError)
  nodes.pop()
  await node.drain()
  const second = await boot()
  expect(second.nodeId).toBe(node.nodeId)
  nodes.pop()
  await second.drain()
  const other = testSettings(edge.url, dir.path, { SPARROW_NODE_ID: 'somebody-else' })
  await expect(
    startNode(
      other,
      async () => scriptedEngine(() => ({ ids: [] })),
      () => {},
    ),
  ).rejects.toThrow(node.nodeId)
})

const CHILD = fileURLToPath(new URL('./node_child.ts', import.meta.url))

const spawnNode = (extra: Record<string, string> = {}): Promise<{ child: ChildProcess; node: RunningNode }> =>
  new Promise((resolve, reject) => {
    const env = {
      ...{ PATH: process.env.PATH ?? '', SPARROW_EDGE_URL: edge.url, SPARROW_JOIN_TOKEN: JOIN_TOKEN },
      ...{ SPARROW_NODE_PORT: '0', SPARROW_STATE_DIR: dir.path, ...extra },
    }
    const child = spawn(process.execPath, [CHILD], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let errors = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text
    })
    child.stdout.setEncoding('utf8').once('data', (line: string) => {
      const { nodeId, address } = JSON.parse(line) as { nodeId: string; address: string }
      resolve({ child, node: { nodeId, address, drain: async () => {} } })
    })
    child.once('exit', (code) => reject(new Error(`the node ended with ${code}: ${errors}`)))
  })

const ended = (child: ChildProcess): Promise<number | null> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve(child.exitCode)
    else child.once('exit', (code) => resolve(code))
  })

test('a node killed in mid-stream states its last progress when it is back, and nothing twice', async () => {
  const first = await spawnNode()
  await until('registration', () => edge.heartbeats.length > 0)
  const request = runRequest()
  const answer = await post(first.node, request)
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader()
  let chunks = 0
  while (reader && chunks < 80) chunks += ((await reader.read()).value ?? '').split('data: ').length - 1
  first.child.kill('SIGKILL')
  await ended(first.child)
  await expect(
    (async () => {
      while (reader && !(await reader.read()).done);
    })(),
  ).rejects.toThrow()
  expect(delivered(request.run.requestId)).toBe(0)
  const beats = edge.heartbeats.length
  const second = await spawnNode()
  await until('the orphan', () => delivered(request.run.requestId) === 1)
  const receipt = edge.receipts.find(({ requestId }) => requestId === request.run.requestId)
  expect(receipt).toMatchObject({ finish: 'node_lost', nodeId: first.node.nodeId })
  expect((receipt?.outputTokens ?? 1) % 64).toBe(0)
  expect(receipt?.outputTokens).toBeGreaterThanOrEqual(64)
  // The same attempt is refused in the second life too.
  await until('registration', () => edge.heartbeats.length > beats)
  const replay = await post(second.node, request)
  expect(replay.status).toBe(409)
  second.child.kill('SIGTERM')
  expect(await ended(second.child)).toBe(0)
})

test('a second SIGTERM ends a draining node at once, with the journal intact', async () => {
  const { child, node } = await spawnNode()
  await until('registration', () => edge.heartbeats.length > 0)
  const request = runRequest()
  const answer = await post(node, request)
  const reader = answer.body?.getReader()
  await reader?.read()
  child.kill('SIGTERM')
  await until('the draining heartbeat', () => edge.heartbeats.at(-1)?.draining === true)
  child.kill('SIGTERM')
  expect(await ended(child)).toBe(130)
  const second = await spawnNode()
  await until('the orphan', () => delivered(request.run.requestId) === 1)
  second.child.kill('SIGTERM')
  expect(await ended(second.child)).toBe(0)
})
