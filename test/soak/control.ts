// npm run soak:control -- [--minutes 5] [--clients 8]: what memory of workerd does under a Worker that keeps nothing: a row read from D1, a
// number stored in a Durable Object, and a stream piped from a plain server. The soak's growth of the process is read against it.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { convertV4MiniflareOptions, Miniflare, type V4MiniflareOptions } from 'miniflare'
import { heapBytes } from './heap.ts'
import { workerdBytes } from './processes.ts'
import { type Sampled, trendOf } from './trend.ts'

const HOST = '127.0.0.1'
const EVENTS = 20
const MIB = 2 ** 20

const scriptFor = (upstream: string): string => `
import { DurableObject } from 'cloudflare:workers'
export class Counter extends DurableObject {
  async add() { await this.ctx.storage.put('n', (await this.ctx.storage.get('n') ?? 0) + 1) }
}
export default {
  async fetch(request, env) {
    await request.text()
    await Promise.all([env.DB.prepare('SELECT 1 AS one').all(), env.COUNTER.get(env.COUNTER.idFromName('one')).add()])
    const { readable, writable } = new IdentityTransformStream()
    const answer = await fetch('${upstream}', { method: 'POST', body: 'x' })
    answer.body.pipeTo(writable)
    return new Response(readable)
  },
}`

const upstream = (): Promise<Server> => {
  const server = createServer(async (request, response) => {
    request.resume()
    for (let i = 0; i < EVENTS; i++) {
      response.write(`data: {"choices":[{"index":0,"delta":{"content":"token ${i}"}}]}\n\n`)
      await sleep(1)
    }
    response.end()
  })
  return new Promise((resolve) => server.listen(0, HOST, () => resolve(server)))
}

const main = async (): Promise<void> => {
  const { values } = parseArgs({
    options: { minutes: { type: 'string', default: '5' }, clients: { type: 'string', default: '8' } },
  })
  const seconds = 60 * Number(values.minutes)
  const server = await upstream()
  const options: V4MiniflareOptions = {
    ...{ modules: true, script: scriptFor(`http://${HOST}:${(server.address() as AddressInfo).port}`) },
    ...{ compatibilityDate: '2026-08-01', d1Databases: ['DB'], inspectorPort: 0 },
    durableObjects: { COUNTER: { className: 'Counter', useSQLite: true } },
    unsafeDirectSockets: [{ host: HOST, port: 0 }],
  }
  const miniflare = new Miniflare(convertV4MiniflareOptions(options))
  await miniflare.ready
  const url = await miniflare.unsafeGetDirectURL()
  const inspector = new URL(`http://${HOST}:${(await miniflare.getInspectorURL()).port}`)
  const start = performance.now()
  const samples: Sampled[] = []
  let [visits, warmVisits] = [0, 0]
  const body = 'x'.repeat(4000)
  const client = async (): Promise<void> => {
    for (; performance.now() - start < 1000 * seconds; visits++) {
      await (await fetch(url, { method: 'POST', body })).text()
      await sleep(20)
    }
  }
  const watch = async (): Promise<void> => {
    for (let at = 0; at < seconds; at = (performance.now() - start) / 1000) {
      samples.push({ at, value: workerdBytes() })
      if (at < seconds / 4) warmVisits = visits
      await sleep(Math.max(250, seconds * 2.5))
    }
  }
  const warm = sleep(250 * seconds).then(() => heapBytes(inspector))
  await Promise.all([watch(), ...Array.from({ length: Number(values.clients) }, client)])
  const process = trendOf(samples)
  const heap = { start: await warm, end: await heapBytes(inspector) }
  const perVisit = (process.end - process.start) / (visits - warmVisits)
  console.log(JSON.stringify({ visits, bytesPerVisit: Math.round(perVisit), process, heap }))
  const said = [process.start, process.end, heap.start, heap.end].map((bytes) => (bytes / MIB).toFixed(1))
  console.log(`workerd ${said[0]} MiB behind the warm-up, ${said[1]} at the end; heap ${said[2]}, ${said[3]}`)
  await miniflare.dispose()
  server.close()
}

await main()
