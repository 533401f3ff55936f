// What anybody may send to a node's port: it is answered, and the node lives on.
import { get, request as httpRequest } from 'node:http'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunningNode } from '../../gpu-node/node.ts'
import { PATHS } from '../../schema/wire.ts'
import { startEdge, startTestNode, type TestEdge, tempDir, testSettings } from './fixture.ts'
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
