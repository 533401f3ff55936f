// The node's bytes to the client. Streams are piped natively; JavaScript wakes once, at the end or when the node is lost.
import type { Dialect } from '../../schema/dialects/dialect.ts'
import { apiError } from '../../schema/errors.ts'
import { errorResponse } from './answer.ts'

const SSE_HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
  'x-should-retry': 'false',
}

/** Pipes until the source ends; a source that breaks gets the dialect's error frame behind what already flowed. */
const pipe = async (source: ReadableStream, sink: WritableStream<Uint8Array>, dialect: Dialect): Promise<void> => {
  try {
    await source.pipeTo(sink, { preventAbort: true })
  } catch (broken) {
    const writer = sink.getWriter()
    try {
      await writer.write(new TextEncoder().encode(dialect.errorFrame(apiError('stream_interrupted'))))
      await writer.close()
      console.error(JSON.stringify({ event: 'stream_interrupted', error: String(broken) }))
    } catch {
      // The client is gone too: nobody is left to tell.
    }
  }
}

export const relayStream = (
  answer: Response,
  dialect: Dialect,
  context: Pick<ExecutionContext, 'waitUntil'>,
): Response => {
  if (!answer.body) return errorResponse(dialect, apiError('node_failed'))
  const { readable, writable } = new IdentityTransformStream()
  context.waitUntil(pipe(answer.body, writable, dialect))
  return new Response(readable, { headers: SSE_HEADERS })
}

/** A whole answer arrives in one piece, so a break can still become a status. */
export const relayWhole = async (answer: Response, dialect: Dialect): Promise<Response> => {
  try {
    return new Response(await answer.arrayBuffer(), {
      headers: { 'content-type': 'application/json', 'x-should-retry': 'false' },
    })
  } catch (error) {
    return errorResponse(dialect, apiError('stream_interrupted', { internal: String(error) }))
  }
}
