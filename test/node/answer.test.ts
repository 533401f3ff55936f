// The node's side of an exchange with a reader that is slow, or takes nothing any more: real sockets.
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { Answer } from '../../gpu-node/answer.ts'
import { until } from './fixture.ts'

const STALL_MS = 400
/** More than the system's own buffers take. */
const BYTES = 16 * 1024 * 1024

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

interface Exchange {
  readonly reader: Socket
  readonly answer: () => Answer | undefined
}

/** An answer of one piece to somebody who reads when told. */
const exchange = async (): Promise<Exchange> => {
  let answer: Answer | undefined
  const server = createServer((request, response) => {
    answer = new Answer(request, response, { stallMs: STALL_MS, keepAliveMs: 60_000 })
    answer.head({ nodeId: 'n', stream: true, promptTokens: 1, cachedTokens: 0 })
    answer.end('x'.repeat(BYTES))
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const reader = connect((server.address() as AddressInfo).port, '127.0.0.1')
  reader.on('error', () => {}).pause()
  reader.write('GET / HTTP/1.1\r\nhost: n\r\n\r\n')
  closing.push(() => {
    reader.destroy()
    server.close()
    server.closeAllConnections()
  })
  await until('the answer', () => answer !== undefined)
  return { reader, answer: () => answer }
}

test('a reader that takes a little all the time gets the whole', async () => {
  const { reader, answer } = await exchange()
  let taken = 0
  const began = performance.now()
  reader.on('data', (part) => {
    taken += part.length
    // The whole takes some seconds at this pace, no single piece a tenth of one.
    reader.pause()
    setTimeout(() => reader.resume(), part.length / (BYTES / 3_000))
  })
  reader.resume()
  await until('the end', () => taken >= BYTES || answer()?.gone === true, 30_000)
  expect(performance.now() - began).toBeGreaterThan(3 * STALL_MS)
  expect(taken).toBeGreaterThanOrEqual(BYTES)
})

test('a reader that takes nothing is cut off', async () => {
  const { answer } = await exchange()
  await until('the cut', () => answer()?.gone === true, 10 * STALL_MS)
})
