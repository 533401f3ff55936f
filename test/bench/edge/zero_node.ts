// A node without an engine: it speaks the wire contract, answers at once, and sends real signed receipts in a real chain, so that the
// Worker before it meters as ever. Its own process, so that it shares no event loop with the clients.
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { SegmentChain } from '../../../gpu-node/chain.ts'
import { EdgeLink } from '../../../gpu-node/heartbeat.ts'
import { loadIdentity } from '../../../gpu-node/identity.ts'
import { Journal } from '../../../gpu-node/journal.ts'
import { Shipper } from '../../../gpu-node/shipper.ts'
import { HEAD_HEADERS, PATHS, type RunRequest } from '../../../schema/wire.ts'

const [edgeUrl = '', joinToken = '', stateDir = '', portText = '0'] = process.argv.slice(2)

const identity = await loadIdentity(stateDir, undefined)
const journal = await Journal.start({
  dir: `${stateDir}/journal`,
  nodeId: identity.nodeId,
  onFailure: () => process.exit(1),
})
const shipper = new Shipper({
  ...{ edgeUrl, identity, journal, chain: await SegmentChain.load(stateDir, identity.nodeId) },
  ...{ deadLetterFile: `${stateDir}/refused.jsonl`, onUnknown: () => {}, onSettled: () => {} },
})

const event = (n: number): string =>
  `data: {"id":"c","object":"chat.completion.chunk","created":0,"model":"zero","choices":[{"index":0,"delta":{"content":"word${n} "},"finish_reason":null}]}\n\n`
const WHOLE = JSON.stringify({
  ...{ id: 'c', object: 'chat.completion', created: 0, model: 'zero' },
  choices: [{ index: 0, message: { role: 'assistant', content: 'word' }, finish_reason: 'stop' }],
  usage: { prompt_tokens: 8, completion_tokens: 1, total_tokens: 9 },
})

/** `max_tokens` events, as fast as the reader takes them, or one every `pace` milliseconds, each with the time it left. */
const stream = async (res: ServerResponse, events: number, pace: number): Promise<void> => {
  for (let i = 0; i < events; i++) {
    if (pace > 0) await new Promise((done) => setTimeout(done, pace))
    if (pace > 0) res.write(`data: {"at":${performance.timeOrigin + performance.now()}}\n\n`)
    else if (!res.write(event(i))) await new Promise((done) => res.once('drain', done))
  }
  res.end('data: [DONE]\n\n')
}

const counts = (output: number) => ({ hit: 0, miss: 8, output, reasoning: 0, firstTokenAt: Date.now() })

/** A run through the Worker is journalled and receipted; one asked directly, at the public path, is only answered. */
const server = createServer(async (req, res) => {
  // The Worker asks whether it lives.
  if (req.method === 'GET') return void res.end()
  const parts: Buffer[] = []
  for await (const part of req) parts.push(part as Buffer)
  const body = JSON.parse(Buffer.concat(parts).toString()) as RunRequest & {
    stream?: boolean
    max_tokens?: number
    seed?: number
  }
  const isRun = req.url === PATHS.run
  const streamed = isRun ? body.run.stream : body.stream === true
  const tokens = isRun ? body.run.maxTokens : (body.max_tokens ?? 1)
  const pace =
    Number(isRun ? body.run.seed : (body.seed ?? 0)) < 1000 ? Number(isRun ? body.run.seed : (body.seed ?? 0)) : 0
  res.writeHead(200, {
    'content-type': streamed ? 'text/event-stream; charset=utf-8' : 'application/json',
    ...{ [HEAD_HEADERS.nodeId]: identity.nodeId, [HEAD_HEADERS.promptTokens]: 8, [HEAD_HEADERS.cachedTokens]: 0 },
  })
  if (streamed) await stream(res, tokens, pace)
  else res.end(WHOLE)
  if (!isRun) return
  const { run, accountId, keyId, attempt } = body
  const key = { requestId: run.requestId, attempt }
  await journal.open({ ...key, accountId, keyId, model: run.model, openedAt: Date.now() })
  await journal.close(key, { finish: 'stop', prefix: [], counts: counts(streamed ? tokens : 1) })
  shipper.notify()
})
server.keepAliveTimeout = 0
server.listen(Number(portText), '127.0.0.1', () => {
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const link = new EdgeLink({
    ...{ edgeUrl, joinToken, identity, isDraining: () => false },
    ...{ onRegistered: () => process.send?.('registered'), onRemoved: () => {} },
    registration: { address, model: 'zero', chatFormat: 'deepseek_v32', contextTokens: 100_000 },
    load: () => ({
      ...{ running: 0, waiting: 0, kvPages: 1, kvPagesUsed: 0, prefillTokensPerSecond: 100_000 },
      ...{ promptTokens: 0, cachedTokens: 0, predictedTokens: 0, predictedRightTokens: 0 },
    }),
  })
  void link.beat()
})
