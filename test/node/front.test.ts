// What anybody may send to a node's port: it is answered, and the node lives on.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { get, request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { RunningNode } from '../../gpu-node/node.ts'
import { PATHS } from '../../schema/wire.ts'
import { startEdge, startTestNode, type TestEdge, tempDir, testSettings, until } from './fixture.ts'
import { scriptedEngine } from './scripted_engine.ts'

const dir = tempDir()
let edge: TestEdge
let node: RunningNode
beforeAll(async () => {
  edge = await startEdge()
  node = await startTestNode(
    testSettings(edge.url, dir.path),
    scriptedEngine(() => ({ ids: [] })),
    edge,
  )
})
afterAll(async () => {
  await node.drain()
  await edge.close()
  dir.remove()
})

test('a node whose log nobody reads any more lives on', async () => {
  const main = fileURLToPath(new URL('../../gpu-node/main.ts', import.meta.url))
  const child = spawn(process.execPath, [main], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      ...{ ...process.env, SPARROW_EDGE_URL: edge.url, SPARROW_JOIN_TOKEN: 'join', SPARROW_NODE_PORT: '0' },
      ...{ SPARROW_STATE_DIR: join(dir.path, 'quiet'), SPARROW_THREADS: '1', SPARROW_CACHE_BYTES: '0' },
    },
  })
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text
  })
  const address = (): string | undefined => /"event":"ready".*?"address":"([^"]+)"/.exec(log)?.[1]
  await until('the node', () => address() !== undefined, 30_000)
  // Until it is registered it knows no signature, and says so.
  await vi.waitFor(async () => expect((await fetch(`${address()}/readyz`)).status).toBe(200), 30_000)
  child.stderr.destroy()
  // Each refusal is a line of the log.
  for (let i = 0; i < 5; i++) expect((await fetch(`${address()}${PATHS.run}`, { method: 'POST' })).status).toBe(401)
  expect((await fetch(`${address()}/livez`)).status).toBe(200)
  child.kill('SIGKILL')
}, 60_000)

test('a connection on which nothing moves is probed', async () => {
  const port = Number(new URL(node.address).port)
  const call = connect(port, '127.0.0.1')
  await once(call, 'connect')
  const hex = (of: number | undefined): string => (of ?? 0).toString(16).toUpperCase().padStart(4, '0')
  const ends = new RegExp(`0100007F:${hex(port)} 0100007F:${hex(call.localPort)} 01 \\S+ 02:`)
  // The kernel's own list: timer 02 is that of probes.
  await until('the timer', () => ends.test(readFileSync('/proc/net/tcp', 'utf8')))
  call.destroy()
})

test('a body that the edge did not sign is refused before it is read', async () => {
  const status = await new Promise((resolve, reject) => {
    const call = httpRequest(`${node.address}${PATHS.run}`, {
      method: 'POST',
      headers: { 'content-length': 20_000_000 },
    })
    // None of it is sent.
    call
      .once('response', (answer) => resolve(answer.statusCode))
      .once('error', reject)
      .flushHeaders()
    call.once('response', () => call.destroy())
  })
  expect(status).toBe(401)
})

test.each(['//', 'http://a:b/', '*', '/%', '/run?x', 'http://node/run'])(
  'a request for %s is answered like any other',
  async (path) => {
    const { port } = new URL(node.address)
    const status = await new Promise((resolve, reject) =>
      get({ port, path }, (answer) => resolve(answer.resume().statusCode)).once('error', reject),
    )
    expect(status).toBe(path.includes('run') ? 405 : 404)
    expect((await fetch(`${node.address}/livez`)).status).toBe(200)
  },
)
