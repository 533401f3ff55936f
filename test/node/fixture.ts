// A test's edge (a small HTTP server that registers nodes, takes heartbeats and receipts) and a node tied to it.
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readSettings, type Settings } from '../../gpu-node/config.ts'
import type { Engine } from '../../gpu-node/engine/engine.ts'
import { type RunningNode, startNode } from '../../gpu-node/node.ts'
import { verifyReceipt } from '../../schema/receipt.ts'
import { importPublicKey, signCall, verifyCall } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import {
  type Heartbeat,
  PATHS,
  type Receipt,
  type Registration,
  type RunRequest,
  type Segment,
} from '../../schema/wire.ts'

export const DISPATCH_SECRET = 'd'.repeat(43)
export const JOIN_TOKEN = 'join'

export const until = async (what: string, condition: () => boolean, ms = 30_000): Promise<void> => {
  const deadline = Date.now() + ms
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never came: ${what}`)
    await new Promise((done) => setTimeout(done, 5))
  }
}

export interface TestEdge {
  readonly url: string
  readonly registrations: Registration[]
  readonly heartbeats: Heartbeat[]
  /** Receipts in the order they were acknowledged. */
  readonly receipts: Receipt[]
  /** Every segment as it came, refused ones too. */
  readonly segments: string[]
  /** Times each receipt came, by request id. */
  readonly deliveries: Map<string, number>
  /** What the next receipt calls answer: a status, or 'drop' to take them without naming them. */
  failures: (number | 'drop')[]
  refuse: Set<string>
  heartbeatStatus: number
  /** What nodes are told to be called with. */
  dispatchSecret: string
  /** An operator removed the node: all that is taken of it is receipts. */
  removed: boolean
  /** Times that the node was told so. */
  toldSo: number
  close(): Promise<void>
}

export const startEdge = async (port = 0): Promise<TestEdge> => {
  const edge: Omit<TestEdge, 'url' | 'close'> = {
    ...{ registrations: [], heartbeats: [], receipts: [], deliveries: new Map(), failures: [], segments: [] },
    ...{ refuse: new Set<string>(), heartbeatStatus: 200, removed: false, toldSo: 0 },
    dispatchSecret: DISPATCH_SECRET,
  }
  let keys = new Map<string, string>()
  const take = async (body: Uint8Array<ArrayBuffer>, authorization: string | undefined): Promise<[number, unknown]> => {
    const segment = JSON.parse(new TextDecoder().decode(body)) as Segment
    edge.segments.push(new TextDecoder().decode(body))
    const failure = edge.failures.shift()
    if (typeof failure === 'number') return [failure, { error: 'scripted' }]
    const publicKey = keys.get(segment.nodeId)
    if (!publicKey) return [404, { error: 'register first' }]
    const key = await importPublicKey(publicKey)
    const call = await verifyCall(key, 'EdDSA', 'edge', authorization, body)
    if (!call.ok || call.value !== segment.nodeId) return [401, {}]
    const acknowledged: { requestId: string; attempt: number }[] = []
    const refused: { requestId: string; attempt: number; reason: string }[] = []
    for (const signed of segment.receipts) {
      const { requestId, attempt } = signed.receipt
      edge.deliveries.set(requestId, (edge.deliveries.get(requestId) ?? 0) + 1)
      if (!(await verifyReceipt(key, signed))) throw new Error('a receipt with a wrong signature')
      if (failure === 'drop') continue
      if (edge.refuse.has(requestId)) refused.push({ requestId, attempt, reason: 'scripted' })
      else {
        edge.receipts.push(signed.receipt)
        acknowledged.push({ requestId, attempt })
      }
    }
    return [200, { acknowledged, refused }]
  }
  const server = createServer(async (call, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of call) chunks.push(chunk as Buffer)
    const body = new Uint8Array(Buffer.concat(chunks))
    const reply = (status: number, json: unknown) => response.writeHead(status).end(JSON.stringify(json))
    if (edge.removed && call.url !== PATHS.receipts) {
      edge.toldSo++
      return reply(410, { error: { code: 'node_removed' } })
    }
    if (call.url === PATHS.register) {
      if (call.headers.authorization !== `Bearer ${JOIN_TOKEN}`) return reply(401, {})
      const registration = JSON.parse(new TextDecoder().decode(body)) as Registration
      edge.registrations.push(registration)
      keys = new Map([...keys, [registration.nodeId, registration.publicKey]])
      return reply(200, { dispatchSecret: edge.dispatchSecret, heartbeatSeconds: 0.1 })
    }
    if (call.url === PATHS.heartbeat) {
      const beat = JSON.parse(new TextDecoder().decode(body)) as Heartbeat
      edge.heartbeats.push(beat)
      return reply(keys.has(beat.nodeId) ? edge.heartbeatStatus : 404, {
        ok: true,
        dispatchSecret: edge.dispatchSecret,
      })
    }
    return reply(...(await take(body, call.headers.authorization)))
  })
  await new Promise<void>((done) => server.listen(port, '127.0.0.1', done))
  return Object.assign(edge, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  })
}

export const tempDir = (): { path: string; remove(): void } => {
  const path = mkdtempSync(join(tmpdir(), 'sparrow-node-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

export const testSettings = (edgeUrl: string, stateDir: string, extra: Record<string, string> = {}): Settings =>
  readSettings({
    SPARROW_EDGE_URL: edgeUrl,
    SPARROW_JOIN_TOKEN: JOIN_TOKEN,
    SPARROW_NODE_PORT: '0',
    SPARROW_STATE_DIR: stateDir,
    SPARROW_DRAIN_SECONDS: '2',
    ...extra,
  })

export const startTestNode = async (settings: Settings, engine: Engine, edge: TestEdge): Promise<RunningNode> => {
  // This node's own: the edge may have heard others, or this one in an earlier life.
  const before = edge.registrations.length
  const node = await startNode(
    settings,
    async () => engine,
    () => {},
  )
  await until('registration', () => edge.registrations.length > before)
  const beats = edge.heartbeats.length
  await until('readiness', () => edge.heartbeats.length > beats)
  return node
}

export const runRequest = (run: Partial<RunRequest['run']> = {}, extra: Partial<RunRequest> = {}): RunRequest => ({
  run: {
    requestId: randomUUID(),
    created: 1_795_450_000,
    model: 'sparrow-mini',
    dialect: 'openai_chat',
    chatFormat: 'deepseek_v32',
    prompt: '<｜begin▁of▁sentence｜><｜User｜>hello there<｜Assistant｜></think>',
    thinking: false,
    stream: true,
    includeUsage: true,
    maxTokens: 1000,
    temperature: 0,
    topP: 1,
    seed: '7',
    stop: [],
    ...run,
  },
  accountId: 'acc',
  keyId: 'key',
  attempt: 1,
  cacheSalt: 'salt',
  prefixKeys: [],
  ...extra,
})

export interface PostOptions {
  readonly secret?: string
  readonly audience?: string
  readonly issuer?: string
  /** Sent in place of the body that was signed. */
  readonly swapped?: string
  readonly signal?: AbortSignal
  /** Another call than a run. */
  readonly path?: string
}

const signed = (node: RunningNode, text: string, options: PostOptions = {}): Promise<string> => {
  const key = new TextEncoder().encode(options.secret ?? DISPATCH_SECRET)
  const { issuer = 'edge', audience = node.nodeId } = options
  return signCall(key, 'HS256', issuer, audience, utf8(text))
}

/** The answer of a reader that reads nothing until it is told to. */
export const postUnread = async (node: RunningNode, body: unknown): Promise<IncomingMessage> => {
  const text = JSON.stringify(body)
  const call = request(`${node.address}${PATHS.run}`, {
    method: 'POST',
    headers: { authorization: await signed(node, text) },
  })
  call.end(text)
  return new Promise((resolve, reject) => call.once('response', resolve).once('error', reject))
}

/** Calls a node as the edge does. */
export const post = async (node: RunningNode, body: unknown, options: PostOptions = {}): Promise<Response> => {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const { swapped, signal, path = PATHS.run } = options
  const authorization = await signed(node, text, options)
  return fetch(`${node.address}${path}`, {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/json' },
    body: swapped ?? text,
    ...(signal ? { signal } : {}),
  })
}

/** Parsed `data:` objects of a whole stream, without `[DONE]`. */
export const chunksOf = (text: string): Record<string, never>[] =>
  text
    .split('\n\n')
    .filter((frame) => frame.startsWith('data: {'))
    .map((frame) => JSON.parse(frame.slice('data: '.length)))

/** Content of all deltas. */
export const contentOf = (text: string): string =>
  chunksOf(text)
    .map(
      (chunk) => (chunk as { choices?: { delta?: { content?: string | null } }[] }).choices?.[0]?.delta?.content ?? '',
    )
    .join('')
