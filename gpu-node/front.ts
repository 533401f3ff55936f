// The node's one HTTP server. It listens before the model is loaded, so that probes get a truthful answer all the time;
// POST /run works once the node is open.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { fail } from '../schema/errors.ts'
import { PATHS } from '../schema/wire.ts'
import { log, reasonOf } from './log.ts'
import type { Metrics } from './metrics.ts'
import type { Readiness } from './probes.ts'

/** The edge sends its body at once; a caller that trickles is not the edge. */
const RUN_BODY_TIMEOUT_MS = 30_000
/** An idle connection outlives the Worker's use of it: one closed under a request reads as a node that is down. */
const TIMEOUTS = { requestTimeout: RUN_BODY_TIMEOUT_MS, headersTimeout: 10_000, keepAliveTimeout: 300_000 }
/** A whole answer may be silent for minutes: what forgets idle connections on the way must see that this one is in use. */
const PROBES = { keepAlive: true, keepAliveInitialDelay: 10_000 }

export interface Liveness {
  /** False: this process does not get well by itself. */
  readonly alive: boolean
  readonly [field: string]: unknown
}

export interface FrontOptions {
  readonly metrics: Metrics
  readonly live: () => Liveness
  readonly readiness: () => Readiness
  /** What runs, for people. */
  readonly health: () => Readonly<Record<string, unknown>>
}

export type RunHandler = (request: IncomingMessage, response: ServerResponse) => Promise<void>

export interface Front {
  readonly http: Server
  /** From now on what the edge posts is taken: a handler a path. */
  open(posts: Readonly<Record<string, RunHandler>>): void
}

const refuse = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
  response.setHeader('retry-after', '1')
  const message = 'This node still loads its model.'
  sendJson(response, 503, { error: { code: 'no_node', message, retryAfterSeconds: 1 } })
}

export const createFront = ({ metrics, live, readiness, health }: FrontOptions): Front => {
  let posts: Readonly<Record<string, RunHandler>> = {
    [PATHS.run]: refuse,
    [PATHS.tokenize]: refuse,
    [PATHS.abandon]: refuse,
  }
  const pages: Readonly<Record<string, (response: ServerResponse) => void | Promise<void>>> = {
    [PATHS.livez]: (response) => {
      const state = live()
      sendJson(response, state.alive ? 200 : 503, state)
    },
    '/readyz': (response) => {
      const state = readiness()
      sendJson(response, state.ready ? 200 : 503, state)
    },
    '/healthz': (response) => {
      const state = readiness()
      sendJson(response, state.ready ? 200 : 503, { ...state, ...health() })
    },
    '/metrics': async (response) => {
      const text = await metrics.text()
      response.writeHead(200, { 'content-type': metrics.contentType }).end(text)
    },
  }
  const handle = async (path: string, request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const page = Object.hasOwn(pages, path) ? pages[path] : undefined
    const take = Object.hasOwn(posts, path) ? posts[path] : undefined
    if (!take && !page) return sendJson(response, 404, errorBody('not_found'))
    if (request.method !== (page ? 'GET' : 'POST')) return sendJson(response, 405, errorBody('method_not_allowed'))
    await (page ? page(response) : take?.(request, response))
  }
  const http = createServer({ ...TIMEOUTS, ...PROBES }, (request, response) => {
    // Whatever stands in a request line: not every target is a URL.
    const path = URL.parse(request.url ?? '', 'http://node')?.pathname ?? ''
    handle(path, request, response).catch((error) => {
      if (!response.destroyed) log('error', 'request_failed', { path, error: reasonOf(error) })
      response.destroy()
    })
  })
  return {
    http,
    open: (handlers) => {
      posts = handlers
    },
  }
}

const errorBody = (code: 'not_found' | 'method_not_allowed') => {
  const { error } = fail(code)
  return { error: { code: error.code, message: error.message } }
}

export const sendJson = (response: ServerResponse, status: number, body: unknown): void => {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}
