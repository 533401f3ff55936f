// Which of the stack's processes is told to have failed: one that ended, or one that is there and does not live.
import { type ChildProcess, spawn } from 'node:child_process'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Watch } from '../../scripts/watch.ts'

const PACE = { everyMs: 5, withinMs: 300 }
const hangs = (): void => {}
const says = (status: number) => (response: ServerResponse) => void response.writeHead(status).end()

/** By path; what nobody should ask is not there. */
let answers: Record<string, (response: ServerResponse) => void>
let asked: string[]
const server = createServer(({ url = '' }, response) => {
  asked.push(url)
  ;(answers[url] ?? says(404))(response)
})
let child: ChildProcess
let watch: Watch
beforeEach(async () => {
  asked = []
  answers = { '/healthz': says(503), '/livez': says(200) }
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' })
  watch = new Watch('/logs', { Worker: url, node: url }, PACE)
})
afterEach(async () => {
  watch.stop()
  child.kill('SIGKILL')
  server.closeAllConnections()
  await new Promise((done) => server.close(done))
})

const askedTimes = (path: string, n: number) =>
  expect.poll(() => asked.filter((one) => one === path).length, { timeout: 10_000 }).toBeGreaterThan(n)

test.each([
  ['Worker', '/healthz', hangs, 'edge'],
  ['node', '/livez', hangs, 'node'],
  ['node', '/livez', says(503), 'node'],
] as const)('a %s that does not live has failed, though its process is there: %s', async (what, path, silent, log) => {
  watch.begin(what, child)
  const failed = watch.failed()
  let told = false
  void failed.then(() => {
    told = true
  })
  await askedTimes(path, 5)
  expect(told).toBe(false)
  answers[path] = silent
  expect(await failed).toMatchObject({ what, log: `/logs/${log}.log` })
})

test('two silences in a row are none yet', async () => {
  let n = 0
  answers['/livez'] = (response) => says(n++ % 3 === 2 ? 200 : 503)(response)
  watch.begin('node', child)
  const failed = watch.failed()
  await askedTimes('/livez', 12)
  expect(await Promise.race([failed, 'lives'])).toBe('lives')
  child.kill('SIGKILL')
  expect(await failed).toMatchObject({ what: 'node' })
})
