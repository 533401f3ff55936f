// The node's bytes to the client. Streams are piped natively; JavaScript wakes once, at the end or when the node is lost.
import type { Dialect } from '../../schema/dialects/dialect.ts'
import { type ApiError, apiError, type Result } from '../../schema/errors.ts'
import { log, reasonOf } from '../log.ts'
import { errorResponse } from './answer.ts'
import type { Keep } from './repeat.ts'

const SSE_HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
  'x-should-retry': 'false',
}

type Context = Pick<ExecutionContext, 'waitUntil'>

/** Told once the node's answer has ended, and whether it was the node that broke it off. */
type Ended = (nodeFailed: boolean) => void

export interface StreamRelay {
  readonly dialect: Dialect
  readonly context: Context
  readonly keep: Keep | undefined
  readonly ended: Ended
  /** The client left. */
  readonly signal: AbortSignal
}

/** Pipes until the source ends; a source that breaks gets the dialect's error frame behind what already flowed. */
const pipe = async (
  source: ReadableStream,
  sink: WritableStream<Uint8Array>,
  { dialect, ended, signal }: StreamRelay,
): Promise<void> => {
  let nodeFailed = false
  try {
    await source.pipeTo(sink, { preventAbort: true })
  } catch (broken) {
    // An error frame would wait for its reader for ever.
    if (signal.aborted) return
    const writer = sink.getWriter()
    try {
      await writer.write(new TextEncoder().encode(dialect.errorFrame(apiError('stream_interrupted'))))
      await writer.close()
      nodeFailed = true
      log('error', 'stream_interrupted', { error: reasonOf(broken) })
    } catch {
      // The client is gone too: nobody is left to tell.
    }
  } finally {
    ended(nodeFailed)
  }
}

/** With `keep`, a second branch of the stream is kept, and goes on when the client leaves. */
export const relayStream = (answer: Response, relay: StreamRelay): Response => {
  const { dialect, context, keep, ended } = relay
  if (!answer.body) {
    ended(true)
    return errorResponse(dialect, apiError('node_failed'))
  }
  const { readable, writable } = new IdentityTransformStream()
  context.waitUntil(pipe(answer.body, writable, relay))
  if (!keep) return new Response(readable, { headers: SSE_HEADERS })
  const [kept, sent] = readable.tee()
  context.waitUntil(keep(kept, SSE_HEADERS['content-type']))
  return new Response(sent, { headers: SSE_HEADERS })
}

/** A whole answer arrives in one piece, so a break can still become a status. Error: node_failed. */
export const relayWhole = async (
  answer: Response,
  context: Context,
  keep: Keep | undefined,
  ended: Ended,
): Promise<Result<Response, ApiError>> => {
  const contentType = 'application/json'
  try {
    const bytes = await answer.arrayBuffer()
    ended(false)
    const body = keep && new Response(bytes).body
    if (keep && body) context.waitUntil(keep(body, contentType))
    const headers = { 'content-type': contentType, 'x-should-retry': 'false' }
    return { ok: true, value: new Response(bytes, { headers }) }
  } catch (error) {
    ended(true)
    return { ok: false, error: apiError('node_failed', { internal: reasonOf(error) }) }
  }
}
