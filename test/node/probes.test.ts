// What a node says of itself, by real processes: while its model loads, while it drains, when its engine hangs or merely waits,
// when its disk is full.
import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { RunningNode } from '../../gpu-node/node.ts'
import { JOIN_TOKEN, post, runRequest, startEdge, type TestEdge, tempDir, until } from './fixture.ts'

const CHILD = fileURLToPath(new URL('./probe_child.ts', import.meta.url))

let edge: TestEdge
let dir: ReturnType<typeof tempDir>
let child: ChildProcess | undefined

beforeEach(async () => {
  edge = await startEdge()
  dir = tempDir()
})
afterEach(async () => {
  if (child?.exitCode === null) {
    child.kill('SIGKILL')
    await new Promise((done) => child?.once('exit', done))
  }
  await edge.close()
  dir.remove()
})

const loadedFile = () => join(dir.path, 'loaded')
const loaded = () => writeFileSync(loadedFile(), '')

/** Resolves as soon as it listens. `limit`: a shell's command before it starts. */
const spawnNode = (extra: Record<string, string> = {}, limit = 'true'): Promise<RunningNode> => {
  const env = {
    ...{ PATH: process.env.PATH ?? '', SPARROW_EDGE_URL: edge.url, SPARROW_JOIN_TOKEN: JOIN_TOKEN },
    ...{ SPARROW_NODE_PORT: '0', SPARROW_NODE_ID: 'probed', SPARROW_STATE_DIR: join(dir.path, 'state') },
    ...{ PROBE_LOADED: loadedFile(), ...extra },
  }
  const started = spawn('sh', ['-c', `${limit} && exec "$0" "$1"`, process.execPath, CHILD], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  child = started
  let log = ''
  return new Promise((resolve, reject) => {
    started.stderr.setEncoding('utf8').on('data', (text: string) => {
      log += text
      const address = /"event":"loading","address":"([^"]+)"/.exec(log)?.[1]
      if (address) resolve({ nodeId: 'probed', address, drain: async () => {} })
    })
    started.once('exit', (code) => reject(new Error(`the node ended with ${code}: ${log}`)))
  })
}

const probe = async (node: RunningNode, path: string): Promise<{ status: number; body: Record<string, unknown> }> => {
  const response = await fetch(`${node.address}${path}`)
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}
const reasons = async (node: RunningNode) => (await probe(node, '/readyz')).body.reasons
const becomes = async (node: RunningNode, path: string, status: number): Promise<void> => {
  for (const deadline = Date.now() + 15_000; (await probe(node, path)).status !== status; ) {
    if (Date.now() > deadline) throw new Error(`${path} never answered ${status}`)
    await new Promise((done) => setTimeout(done, 20))
  }
}

test('a node that loads its model is alive, not ready, and unknown to the edge', async () => {
  const node = await spawnNode()
  expect(await probe(node, '/livez')).toMatchObject({ status: 200, body: { alive: true } })
  expect(await probe(node, '/readyz')).toMatchObject({ status: 503, body: { ready: false } })
  expect(await reasons(node)).toContain('loading_model')
  expect((await probe(node, '/healthz')).status).toBe(503)
  expect((await post(node, runRequest())).status).toBe(503)
  expect((await fetch(`${node.address}/metrics`)).status).toBe(200)
  expect(edge.registrations).toEqual([])
  loaded()
  await becomes(node, '/readyz', 200)
  expect(await reasons(node)).toEqual([])
  expect(edge.registrations.length).toBe(1)
  expect((await post(node, runRequest())).status).toBe(200)
})

test('without an edge a node is alive and not ready', async () => {
  loaded()
  const node = await spawnNode({ SPARROW_EDGE_URL: 'http://127.0.0.1:9' })
  await expect.poll(() => reasons(node), { timeout: 10_000 }).toEqual(['not_registered'])
  expect((await probe(node, '/livez')).status).toBe(200)
})

test('a draining node is alive and not ready', async () => {
  loaded()
  const node = await spawnNode({ SPARROW_DRAIN_SECONDS: '20' })
  await becomes(node, '/readyz', 200)
  const leave = new AbortController()
  const answer = post(node, runRequest({ seed: '2' }), { signal: leave.signal }).catch(() => {})
  await expect.poll(async () => (await probe(node, '/healthz')).body.waiting, { timeout: 10_000 }).toBe(1)
  child?.kill('SIGTERM')
  await becomes(node, '/readyz', 503)
  expect(await reasons(node)).toContain('draining')
  expect((await probe(node, '/livez')).status).toBe(200)
  leave.abort()
  await answer
  expect(await new Promise((done) => child?.once('exit', done))).toBe(0)
})

test('an engine that makes no step while it has work is told by both probes and to the edge, until it moves', async () => {
  loaded()
  const node = await spawnNode({ SPARROW_STUCK_SECONDS: '1' })
  await becomes(node, '/readyz', 200)
  const leave = new AbortController()
  const answer = post(node, runRequest({ seed: '1' }), { signal: leave.signal }).catch(() => {})
  await becomes(node, '/livez', 503)
  expect(await reasons(node)).toEqual(['engine_stuck'])
  await until('the edge hears of it', () => edge.heartbeats.at(-1)?.draining === true)
  leave.abort()
  await answer
  await becomes(node, '/livez', 200)
  await becomes(node, '/readyz', 200)
  await until('the edge hears of it', () => edge.heartbeats.at(-1)?.draining === false)
})

test('an engine whose sequences wait for masks is not stuck', async () => {
  loaded()
  const node = await spawnNode({ SPARROW_STUCK_SECONDS: '1' })
  await becomes(node, '/readyz', 200)
  const leave = new AbortController()
  const answer = post(node, runRequest({ seed: '2' }), { signal: leave.signal }).catch(() => {})
  await expect.poll(async () => (await probe(node, '/healthz')).body.waiting, { timeout: 10_000 }).toBe(1)
  await new Promise((done) => setTimeout(done, 1500))
  expect((await probe(node, '/livez')).status).toBe(200)
  expect((await probe(node, '/readyz')).status).toBe(200)
  leave.abort()
  await answer
})

test('a node that cannot write its journal is not ready', async () => {
  loaded()
  // Files end at 8 KiB: some ten runs.
  const node = await spawnNode({}, 'ulimit -f 16')
  await becomes(node, '/readyz', 200)
  for (let i = 0; i < 40 && (await probe(node, '/readyz')).status === 200; i++) {
    await post(node, runRequest())
      .then((answer) => answer.text())
      .catch(() => {})
  }
  expect(await reasons(node)).toEqual(['journal_failed'])
})
