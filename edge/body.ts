// A body within bounds: one that is longer is not read to its end, whatever its head says about its length.
import { fail, ok, type Result } from '../schema/errors.ts'
import { REQUEST_BODY_BYTES_MAX } from '../schema/limits.ts'
import { bodyHash } from '../schema/signature.ts'
import { reasonOf } from './log.ts'

const tooLarge = fail('request_too_large', {
  message: `The request body may have at most ${REQUEST_BODY_BYTES_MAX} bytes.`,
})

const joined = (chunks: readonly Uint8Array[], size: number): Uint8Array<ArrayBuffer> => {
  const whole = new Uint8Array(size)
  let at = 0
  for (const chunk of chunks) {
    whole.set(chunk, at)
    at += chunk.byteLength
  }
  return whole
}

/** All bytes of a stream; `undefined`, and no more is read, where they are more than `most`. */
export const upTo = async (
  most: number,
  stream: ReadableStream<Uint8Array>,
): Promise<Uint8Array<ArrayBuffer> | undefined> => {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of stream) {
    size += chunk.byteLength
    if (size > most) return undefined
    chunks.push(chunk)
  }
  return joined(chunks, size)
}

/** Errors: client_closed, request_too_large. */
export const readBody = async (request: Request): Promise<Result<Uint8Array<ArrayBuffer>>> => {
  const length = request.headers.get('content-length')
  if (Number(length ?? 0) > REQUEST_BODY_BYTES_MAX) return tooLarge
  if (!request.body) return ok(new Uint8Array())
  try {
    // A length that is given is the length of what comes.
    if (length !== null) return ok(new Uint8Array(await request.arrayBuffer()))
    const bytes = await upTo(REQUEST_BODY_BYTES_MAX, request.body)
    return bytes ? ok(bytes) : tooLarge
  } catch (error) {
    return fail('client_closed', { internal: reasonOf(error) })
  }
}

/** A body that nobody wants is taken up to this length, for so long. */
const DISCARDED_BYTES_MAX = 4 * REQUEST_BODY_BYTES_MAX
const DISCARDED_MS = 10_000

/**
 * What was not read of a refused request that says how long it is: a connection that is closed over it is reset, and the client may lose
 * its answer with it. Nothing of it is kept.
 */
export const discard = async ({ body, headers }: Request): Promise<void> => {
  const length = Number(headers.get('content-length') ?? 0)
  if (!body || body.locked || length === 0 || length > DISCARDED_BYTES_MAX) return
  const reader = body.getReader()
  const late = setTimeout(() => void reader.cancel().catch(() => {}), DISCARDED_MS)
  try {
    while (!(await reader.read()).done);
  } catch {
    // The client is gone, or the body was read.
  } finally {
    clearTimeout(late)
  }
}

/** The body of a call whose head was found right: whom nobody knows fills no memory. Errors: invalid_signature, and those of readBody. */
export const readSigned = async (request: Request, signedHash: unknown): Promise<Result<Uint8Array<ArrayBuffer>>> => {
  const bytes = await readBody(request)
  if (!bytes.ok) return bytes
  const isSigned = signedHash === (await bodyHash(bytes.value))
  return isSigned ? bytes : fail('invalid_signature', { internal: 'body hash differs' })
}
