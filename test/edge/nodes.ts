// Servers that speak the node's side of the wire contract just well enough to succeed, refuse or break on purpose, each on a port
// of its own. They run beside vitest, outside workerd.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

interface Asked {
  readonly stream: boolean
}

type Behaviour = (res: ServerResponse, stream: boolean, asked: { readonly run: Asked }, path: string) => void

const refuse =
  (status: number, error: object): Behaviour =>
  (res) =>
    res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ error }))

const head = (res: ServerResponse, id: string): ServerResponse =>
  res.writeHead(200, { 'x-sparrow-node': id, 'x-sparrow-prompt-tokens': '10', 'x-sparrow-cached-tokens': '0' })

const succeed =
  (id: string, body = '{"whole":1}'): Behaviour =>
  (res, stream) =>
    head(res, id).end(stream ? `data: ${body}\n\ndata: [DONE]\n\n` : body)

/** The connection dies in mid-answer, as when the process is killed. */
const breakOff: Behaviour = (res) => {
  head(res, 'breaks').write('data: {"first":1}\n\n')
  setTimeout(() => res.destroy(), 50)
}

/** Answers with what it was asked. */
const mirror: Behaviour = (res, _, asked) => head(res, 'mirror').end(JSON.stringify(asked))

const BEHAVIOURS: Readonly<Record<string, Behaviour>> = {
  good: succeed('good'),
  other: succeed('other', '{"whole":1,"node":"other"}'),
  impostor: succeed('good'),
  draining: refuse(503, { code: 'node_draining', message: 'draining' }),
  full: refuse(413, { code: 'context_length_exceeded', message: 'too long', param: 'messages' }),
  breaks: breakOff,
  slowbreak: (res) => {
    head(res, 'slowbreak').write('{"half":')
    setTimeout(() => res.destroy(), 800)
  },
  proxy: (res) => void res.writeHead(502, { 'content-type': 'text/html' }).end('<html>Bad gateway</html>'),
  broken: refuse(500, { code: 'internal_error', message: 'device lost' }),
  /** One of several behind a proxy, told apart by their paths. */
  proxied: (res, stream, asked, path) =>
    path === '/proxied/run' ? succeed('proxied')(res, stream, asked, path) : void res.writeHead(404).end('<html>'),
  overdue: refuse(504, { code: 'deadline_exceeded', message: 'too late' }),
  unsigned: refuse(401, { code: 'invalid_signature', message: 'no' }),
  mirror,
  /** It would be found behind its redirect. */
  moved: (res, stream, asked, path) =>
    path === '/run'
      ? void res.writeHead(307, { location: '/moved' }).end()
      : succeed('moved')(res, stream, asked, path),
  /** Its proxy takes no body of this size. */
  small: (res) => void res.writeHead(413, { 'content-type': 'text/html' }).end('<html>Too large</html>'),
  frozen: () => {},
  freezes: (res) => void head(res, 'freezes').write('data: {"first":1}\n\n'),
  /** As with a long prompt. */
  slow: (...asked) => void setTimeout(() => succeed('slow')(...asked), 3000),
}

/** A process that froze: its connections stay open, and nothing comes, at /livez neither. */
const FROZEN = new Set(['frozen', 'freezes'])

const serve = (id: string, behaviour: Behaviour): Promise<string> =>
  new Promise((resolve) => {
    const server = createServer(async (req: IncomingMessage, res) => {
      if (req.method === 'GET') return void (FROZEN.has(id) || res.end('{"alive":true}'))
      const parts: Buffer[] = []
      for await (const part of req) parts.push(part as Buffer)
      const asked = JSON.parse(Buffer.concat(parts).toString()) as { run: Asked }
      behaviour(res, asked.run.stream, asked, req.url ?? '')
    })
    // A connection that the Worker keeps must not be closed under its next request.
    server.keepAliveTimeout = 0
    server.listen(0, '127.0.0.1', () => {
      server.unref()
      resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    })
  })

/** Address of each node by its id; `down` has one where nobody listens. */
export const serveTestNodes = async (): Promise<Record<string, string>> => {
  const served = await Promise.all(Object.entries(BEHAVIOURS).map(async ([id, b]) => [id, await serve(id, b)] as const))
  const addresses = Object.fromEntries(served)
  return { ...addresses, proxied: `${addresses.proxied}/proxied/`, down: 'http://127.0.0.1:9' }
}
