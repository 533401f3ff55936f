// Sealed segments: what an edge may have seen goes out again byte for byte, over restarts too, and each names the one before it.
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { SegmentChain } from '../../gpu-node/chain.ts'
import type { RunningNode } from '../../gpu-node/node.ts'
import type { Segment } from '../../schema/wire.ts'
import { post, runRequest, startEdge, startTestNode, type TestEdge, tempDir, testSettings, until } from './fixture.ts'
import { scriptedEngine } from './scripted_engine.ts'

let dir: ReturnType<typeof tempDir>
let edge: TestEdge
let node: RunningNode | undefined
beforeEach(async () => {
  dir = tempDir()
  edge = await startEdge()
})
afterEach(async () => {
  await node?.drain()
  node = undefined
  await edge.close()
  dir.remove()
})

const boot = async (): Promise<RunningNode> => {
  const engine = scriptedEngine(() => ({ ids: [70, 71, 1] }))
  node = await startTestNode(testSettings(edge.url, dir.path), engine, edge)
  return node
}
const serve = async (at: RunningNode): Promise<string> => {
  const request = runRequest()
  await (await post(at, request)).text()
  return request.run.requestId
}
const came = (id: string) => edge.receipts.some(({ requestId }) => requestId === id)
const linkOf = (text: string | undefined) => (JSON.parse(text ?? '{}') as Segment).link
const sha256 = (text: string | undefined) =>
  createHash('sha256')
    .update(text ?? '')
    .digest('hex')

test('segments form a chain, over a restart; one that failed comes again as it was', async () => {
  const first = await serve(await boot())
  await until('the first', () => came(first))
  edge.failures = [503, 503]
  const second = await serve(node as RunningNode)
  await until('the second', () => came(second))
  await node?.drain()
  const third = await serve(await boot())
  await until('the third', () => came(third))
  expect(edge.segments).toHaveLength(5)
  expect(new Set(edge.segments).size).toBe(3)
  const [one, two, , , three] = edge.segments
  expect([one, two, three].map((text) => linkOf(text).index)).toEqual([0, 1, 2])
  expect(linkOf(two)).toEqual({ chain: linkOf(one).chain, index: 1, previous: sha256(one) })
  expect(linkOf(three).previous).toBe(sha256(two))
})

test('an edge that does not know the chain gets its receipts under another', async () => {
  await boot()
  edge.failures = [409]
  const id = await serve(node as RunningNode)
  await until('the receipt', () => came(id))
  const [refused, taken] = edge.segments.map(linkOf)
  expect(taken).toMatchObject({ index: 0, previous: '' })
  expect(taken?.chain).not.toBe(refused?.chain)
})

test('a sealed segment survives a kill; a damaged file starts another chain', async () => {
  const chain = await SegmentChain.load(dir.path, 'n')
  const sealed = await chain.seal([])
  expect((await SegmentChain.load(dir.path, 'n')).unconfirmed).toBe(sealed)
  await chain.confirm()
  const next = await SegmentChain.load(dir.path, 'n')
  expect(next.unconfirmed).toBeUndefined()
  expect(linkOf(await next.seal([]))).toEqual({ chain: linkOf(sealed).chain, index: 1, previous: sha256(sealed) })
  writeFileSync(join(dir.path, 'chain.json'), '{"chain":')
  expect(linkOf(await (await SegmentChain.load(dir.path, 'n')).seal([])).index).toBe(0)
})

test('one damaged bit of the chain starts another one; every receipt is billed', async () => {
  const seal = async (): Promise<{ file: string; text: Buffer }> => {
    const chain = await SegmentChain.load(dir.path, 'n')
    await chain.seal([])
    const file = join(dir.path, 'chain.json')
    return { file, text: readFileSync(file) }
  }
  const { file, text } = await seal()
  const before = JSON.parse(text.toString()) as { chain: string }
  for (let bit = 0; bit < text.length * 8; bit += 5) {
    const damaged = Buffer.from(text)
    damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7))
    writeFileSync(file, damaged)
    const chain = await SegmentChain.load(dir.path, 'n')
    // As it was, or another one: nothing in between.
    if (chain.unconfirmed !== undefined)
      expect(chain.unconfirmed, `bit ${bit}`).toBe(JSON.parse(text.toString()).sealed)
    else expect(linkOf(await chain.seal([])).chain).not.toBe(before.chain)
  }
})
