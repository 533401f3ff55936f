// The contract between edge and node: error table, signed calls, receipts that hold together, message shapes.
import { decodeJwt, SignJWT } from 'jose'
import { expect, test } from 'vitest'
import { apiError, ERRORS, isErrorCode, isRetryable, statusOf } from '../../schema/errors.ts'
import { receiptFault } from '../../schema/receipt.ts'
import { bodyHash, signCall, verifyCall } from '../../schema/signature.ts'
import receipts from '../../schema/vectors/receipts.json' with { type: 'json' }
import * as wire from '../../schema/wire.ts'

const codes = Object.keys(ERRORS).filter(isErrorCode)

test('error table: each row is a public sentence under a fitting status', () => {
  for (const code of codes) {
    const { status, message, retryable } = ERRORS[code]
    expect(status, code).toBeGreaterThanOrEqual(400)
    expect(status, code).toBeLessThan(600)
    expect(message, code).toMatch(/^[A-Z].*\.$/)
    if (retryable) expect([409, 429, 500, 502, 503], code).toContain(status)
  }
})

test.each([
  ['invalid_request', 400],
  ['invalid_api_key', 401],
  ['insufficient_balance', 402],
  ['model_not_found', 404],
  ['method_not_allowed', 405],
  ['context_length_exceeded', 413],
  ['invalid_parameter', 422],
  ['rate_limit_exceeded', 429],
  ['no_node', 503],
] as const)('%s answers %d', (code, status) => {
  expect(statusOf(code)).toBe(status)
})

test('a stream that broke is never retried: tokens were already billed', () => {
  expect(isRetryable('stream_interrupted')).toBe(false)
  expect(isRetryable('node_failed')).toBe(true)
  expect(isErrorCode('toString')).toBe(false)
  expect(apiError('no_node', { retryAfterSeconds: 1 })).toEqual({
    code: 'no_node',
    message: ERRORS.no_node.message,
    retryAfterSeconds: 1,
  })
})

const utf8 = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text)
const secret = utf8('0123456789abcdef0123456789abcdef')
const body = utf8('{"a":1}')

test('a signed call names its issuer', async () => {
  const header = await signCall(secret, 'HS256', 'edge', 'node_1', body)
  expect(await verifyCall(secret, 'HS256', 'node_1', header, body)).toEqual({ ok: true, value: 'edge' })
})

test('Ed25519 calls verify under the public key only', async () => {
  const pair = await crypto.subtle.generateKey({ name: 'Ed25519' }, true, ['sign', 'verify'])
  const other = await crypto.subtle.generateKey({ name: 'Ed25519' }, true, ['sign', 'verify'])
  const header = await signCall(pair.privateKey, 'EdDSA', 'node_1', 'edge', body)
  expect((await verifyCall(pair.publicKey, 'EdDSA', 'edge', header, body)).ok).toBe(true)
  expect((await verifyCall(other.publicKey, 'EdDSA', 'edge', header, body)).ok).toBe(false)
})

const signedAt = async (issued: number, expires: number, bsh?: string): Promise<string> => {
  const token = new SignJWT(bsh === undefined ? {} : { bsh }).setProtectedHeader({ alg: 'HS256' }).setIssuer('edge')
  const signed = token.setAudience('node_1').setIssuedAt(issued).setExpirationTime(expires)
  return `Bearer ${await signed.sign(secret)}`
}

test('who signs by a clock that is behind is told so; who signs wrongly is not', async () => {
  const now = Math.floor(Date.now() / 1000)
  const late = await signedAt(now - 600, now - 540, await bodyHash(body))
  const message = async (key: Uint8Array<ArrayBuffer>) => {
    const answer = await verifyCall(key, 'HS256', 'node_1', late, body)
    return answer.ok ? undefined : answer.error.message
  }
  expect(await message(secret)).toContain('clock')
  expect(await message(utf8('another secret, also of 32 bytes'))).toBe(ERRORS.invalid_signature.message)
})

test('a call is refused when anything about it is off', async () => {
  const header = await signCall(secret, 'HS256', 'edge', 'node_1', body)
  const now = Math.floor(Date.now() / 1000)
  const hash = await bodyHash(body)
  const signedWith = async (claims: object, alg = 'HS256'): Promise<string> =>
    `Bearer ${await new SignJWT({ ...claims, aud: 'node_1', bsh: hash }).setProtectedHeader({ alg }).sign(secret)}`
  const bad: [string, Uint8Array<ArrayBuffer>, string, string | undefined][] = [
    ['tampered body', secret, 'node_1', header],
    ['other key', utf8('another secret, also of 32 bytes'), 'node_1', header],
    ['other audience', secret, 'node_2', header],
    ['tampered token', secret, 'node_1', `${header.slice(0, -2)}xx`],
    ['no header', secret, 'node_1', undefined],
    ['other scheme', secret, 'node_1', header.replace('Bearer', 'Basic')],
    ['expired', secret, 'node_1', await signedAt(now - 200, now - 100, hash)],
    ['no body hash', secret, 'node_1', await signedAt(now, now + 60)],
    ['expired by more than clocks differ', secret, 'node_1', await signedAt(now - 100, now - 45, hash)],
    ['for ever', secret, 'node_1', await signedWith({ iat: now, iss: 'edge' })],
    ['of no time', secret, 'node_1', await signedWith({ exp: now + 60, iss: 'edge' })],
    ['of nobody', secret, 'node_1', await signedWith({ exp: now + 60, iat: now })],
    ['other algorithm', secret, 'node_1', await signedWith({ exp: now + 60, iat: now, iss: 'edge' }, 'HS512')],
  ]
  for (const [name, key, audience, authorization] of bad) {
    const sent = name === 'tampered body' ? utf8('{"a":2}') : body
    const result = await verifyCall(key, 'HS256', audience, authorization, sent)
    expect(result, name).toMatchObject({ ok: false, error: { code: 'invalid_signature' } })
  }
  const late = await signedAt(now - 80, now - 20, hash)
  for (const good of [await signedAt(now, now + 60, hash), late])
    expect((await verifyCall(secret, 'HS256', 'node_1', good, body)).ok).toBe(true)
  // Short-lived: whoever overhears a call has a minute.
  const { exp = 0, iat = 0 } = decodeJwt(header.replace('Bearer ', ''))
  expect(exp - iat).toBe(60)
})

const receipt = wire.receiptSchema.parse(receipts.receipts[0]?.receipt)

test.each([
  [{ hitTokens: 63 }, /multiple of 64/],
  [{ reasoningTokens: 6 }, /reasoningTokens/],
  [{ missTokens: 0 }, /no prompt token/],
  [{ closedAt: receipt.openedAt - 1 }, /closed before/],
])('receipt fault %j', (change, fault) => {
  expect(receiptFault({ ...receipt, ...change })).toMatch(fault)
})

test.each([
  ['version', 2],
  ['requestId', 'abc'],
  ['attempt', 0],
  ['hitTokens', -1],
  ['missTokens', 1.5],
  ['outputTokens', Number.MAX_SAFE_INTEGER + 1],
  ['outputTokens', '5'],
  ['finish', 'bored'],
  ['prefix', [['short', 1]]],
  ['seq', undefined],
])('a receipt with %s = %j is no receipt', (field, value) => {
  expect(wire.receiptSchema.safeParse({ ...receipt, [field]: value }).success).toBe(false)
})

const run = {
  requestId: receipt.requestId,
  created: 1,
  model: 'm',
  dialect: 'openai_chat',
  chatFormat: 'deepseek_v32',
  prompt: 'p',
  thinking: false,
  stream: true,
  includeUsage: false,
  maxTokens: 1,
  temperature: 1,
  topP: 1,
  seed: '18446744073709551615',
  stop: [],
}

test.each([
  ['maxTokens', -1],
  ['temperature', 2.1],
  ['temperature', Number.NaN],
  ['topP', -0.1],
  ['seed', '-1'],
  ['seed', 1],
  ['stop', ['']],
  ['stop', Array.from({ length: 17 }, () => 'x')],
  ['prompt', undefined],
])('a run with %s = %j is refused', (field, value) => {
  expect(wire.runSchema.safeParse(run).success).toBe(true)
  expect(wire.runSchema.safeParse({ ...run, [field]: value }).success).toBe(false)
})

test('messages of nodes', () => {
  const load = { running: 0, waiting: 0, kvPages: 1, kvPagesUsed: 0, prefillTokensPerSecond: 0.5 }
  expect(wire.heartbeatSchema.safeParse({ nodeId: 'n', draining: false, load }).success).toBe(true)
  expect(wire.heartbeatSchema.safeParse({ nodeId: 'n', load }).success).toBe(false)
  expect(
    wire.segmentSchema.safeParse({ nodeId: 'n', link: { chain: 'c', index: 0, previous: '' }, receipts: [] }).success,
  ).toBe(false)
  expect(wire.responseHeadSchema.parse({ nodeId: 'n', promptTokens: '7', cachedTokens: '0' })).toEqual({
    nodeId: 'n',
    promptTokens: 7,
    cachedTokens: 0,
  })
  const request = { run, accountId: 'a', keyId: 'k', attempt: 1, cacheSalt: 's', prefixKeys: ['A'.repeat(24)] }
  expect(wire.runRequestSchema.safeParse(request).success).toBe(true)
  expect(wire.runRequestSchema.safeParse({ ...request, attempt: 0 }).success).toBe(false)
})
