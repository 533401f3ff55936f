// Endpoints beside the answers: models with context and prices, counted tokens, the published document and its page.
import { env } from 'cloudflare:workers'
import fc from 'fast-check'
import { afterEach, beforeAll, expect, test, vi } from 'vitest'
import { keyHash } from '../../edge/auth.ts'
import { TOKEN_COUNTS_PER_MINUTE } from '../../schema/limits.ts'
import { OPERATIONS } from '../../schema/openapi/operations.ts'
import { modelListSchema } from '../../schema/public_answers.ts'
import { type Account, admin, call, MODEL, objectOf, openAccount, registerNode, removeNodes } from './world.ts'

let account: Account
const bearer = (): Record<string, string> => ({ authorization: `Bearer ${account.key}` })
const post = (path: string, body: unknown, headers = bearer()): Promise<Response> =>
  call(path, { method: 'POST', headers, body: JSON.stringify(body) })

beforeAll(async () => {
  account = await openAccount(1_000_000_000)
  await removeNodes()
})

afterEach(() => {
  vi.restoreAllMocks()
})

test('no cache keeps what a key was shown: by x-api-key it does not know that the answer is private', async () => {
  await registerNode('good')
  const chat = { model: MODEL, max_tokens: 5, messages: [{ role: 'user', content: 'Hi' }] }
  const headers = { 'x-api-key': account.key }
  for (const answer of [
    ...(await Promise.all(['/v1/usage', '/user/balance', '/v1/models'].map((path) => call(path, { headers })))),
    await post('/v1/chat/completions', chat, headers),
    await post('/v1/chat/completions', chat, { 'x-api-key': 'sk-wrong' }),
    await admin('GET', '/keys'),
  ]) {
    expect(answer.headers.get('cache-control')).toBe('no-store')
    await answer.body?.cancel()
  }
  await removeNodes()
})

test('a client whose base ends in /v1 finds the balance too', async () => {
  const balance = async (path: string) => (await call(path, { headers: bearer() })).json()
  expect(await balance('/v1/user/balance')).toMatchObject({ is_available: true })
  expect(await balance('/v1/user/balance')).toEqual(await balance('/user/balance'))
})

test('an address with a slash at its end is the same one', async () => {
  for (const path of ['/docs', '/dashboard', '/openapi.json', '/v1/models', '/user/balance', '/v1/usage'])
    for (const asked of [path, `${path}/`]) {
      const answer = await call(asked, { headers: bearer() })
      expect([asked, answer.status]).toEqual([asked, 200])
      await answer.body?.cancel()
    }
})

test('a model has the context of its nodes and its price of now', async () => {
  const list = async () => modelListSchema.parse(await (await call('/v1/models', { headers: bearer() })).json()).data
  expect((await list()).find(({ id }) => id === MODEL)?.context_length).toBeNull()
  await registerNode('good')
  const model = (await list()).find(({ id }) => id === MODEL)
  expect(model).toMatchObject({
    context_length: 4096,
    max_output_tokens: 4096,
    pricing: { prompt: '0.000000280', input_cache_read: '0.000000028', completion: '0.000000420' },
  })
  for (const base of ['/v1', '', '/beta']) {
    expect(await (await call(`${base}/models/${MODEL}`, { headers: bearer() })).json(), base).toEqual(model)
  }
  await removeNodes()
})

test('Anthropic’s header carries the key; a forged one is refused in Anthropic’s words', async () => {
  const headers = { 'x-api-key': account.key }
  expect((await call('/v1/models', { headers })).status).toBe(200)
  const body = { model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 5 }
  const forged = await post('/anthropic/v1/messages', body, { 'x-api-key': `${account.key.slice(0, -1)}x` })
  expect(forged.status).toBe(401)
  expect(await forged.json()).toMatchObject({ type: 'error', error: { type: 'authentication_error' } })
  expect(forged.headers.get('request-id')).toBe(forged.headers.get('x-request-id'))
  for (const path of ['/anthropic/v1/messages', '/anthropic/messages', '/anthropic/messages/count_tokens']) {
    const { max_tokens: _, ...counted } = body
    const without = await post(path, path.endsWith('messages') ? body : counted)
    expect([path, without.status, await without.json()]).toMatchObject([
      ...[path, 529, { error: { type: 'overloaded_error' } }],
    ])
  }
})

test('counting asks for a key that may use the model, and has a limit of its own', async () => {
  const body = { model: MODEL, prompt: 'Hi' }
  expect((await post('/tokenize', body, {})).status).toBe(401)
  expect((await post('/tokenize', { ...body, model: 'none' })).status).toBe(404)
  const limited = await admin('POST', '/keys', { account: account.id, name: 'l', limits: { models: ['other'] } })
  const { key } = await limited.json<{ key: string }>()
  expect((await post('/tokenize', body, { authorization: `Bearer ${key}` })).status).toBe(403)
  // The clock stands, so that nothing of the limit comes back on a slow machine.
  vi.spyOn(Date, 'now').mockReturnValue(Date.now())
  const counter = await openAccount(1)
  const stub = objectOf(counter)
  const caller = { keyHash: keyHash(env.SPARROW_SECRET, counter.key), ip: null, model: MODEL }
  const answers = await Promise.all(
    Array.from({ length: TOKEN_COUNTS_PER_MINUTE + 200 }, async () => stub.admitCount(caller)),
  )
  const refused = answers.flatMap((answer) => (answer.ok ? [] : [answer.error]))
  expect(refused).toHaveLength(200)
  for (const error of refused)
    expect(error).toMatchObject({ code: 'rate_limit_exceeded', retryAfterSeconds: expect.any(Number) })
})

test('a count draws by its size: a megabyte is seconds of a node, and nobody pays for them', async () => {
  const own = await openAccount(1_000_000)
  const stub = objectOf(own)
  const caller = { keyHash: keyHash(env.SPARROW_SECRET, own.key), model: MODEL, ip: null }
  const megabyte = () => stub.admitCount(caller, 1024 * 1024)
  const answers = await Promise.all(Array.from({ length: 6 }, megabyte))
  expect(answers.map(({ ok }) => ok)).toEqual([true, true, true, true, false, false])
  expect((await stub.admitCount(caller, 100)).ok).toBe(true)
})

test('the document and its page come from here alone', async () => {
  const document = await (await call('/openapi.json')).json<{ openapi: string; servers: { url: string }[] }>()
  expect(document).toMatchObject({ openapi: '3.1.0', servers: [{ url: 'http://edge.test' }] })
  const page = await call('/docs')
  const text = await page.text()
  expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'; style-src 'sha256-/)
  expect(text).not.toMatch(/<script|<link|src=|https:\/\//)
  for (const { id, path } of OPERATIONS) {
    expect(text).toContain(`id="${id}"`)
    expect(text).toContain(`<code>${path}</code>`)
  }
  expect(text).toContain('<code>max_completion_tokens</code>')
})

test('the page’s example is answered whatever model is served; its fields have their types', async () => {
  await registerNode('good')
  const text = await (await call('/docs')).text()
  const example = /-d &#39;(.*?)&#39;/.exec(text)?.[1] ?? /-d '(.*?)'/.exec(text)?.[1] ?? ''
  expect((await post('/v1/chat/completions', JSON.parse(example.replaceAll('&quot;', '"')))).status).toBe(200)
  await removeNodes()
  expect(text).toContain('<code>stream</code> <span class="type">boolean | null</span>')
  expect(text).not.toContain('`')
  const chat = text.slice(text.indexOf('id="createChatCompletion"'), text.indexOf('id="createCompletion"'))
  expect(chat).toContain('<code>Idempotency-Key</code> <span class="type">in header</span>')
  expect(chat).toContain('<code>402</code> The balance does not cover this request. Top up.')
})

test('no body makes an endpoint of the document fail', async () => {
  const posts = OPERATIONS.filter(({ method }) => method === 'post')
  const body = fc.oneof(
    fc.json({ maxDepth: 4 }),
    fc.string(),
    fc
      .record({
        model: fc.constant(MODEL),
        messages: fc.jsonValue(),
        input: fc.jsonValue(),
        max_tokens: fc.jsonValue(),
      })
      .map((value) => JSON.stringify(value)),
  )
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...posts), body, async ({ path, error }, text) => {
      const response = await call(path, { method: 'POST', headers: bearer(), body: text })
      const answer = error.schema.safeParse(await response.json())
      expect([path, text, response.status, answer.success]).toEqual([path, text, expect.any(Number), true])
      // No node is there, so a good body finds none; the limit of counts was used up above.
      expect(response.status === 503 || response.status === 529 || response.status < 500).toBe(true)
    }),
    { numRuns: 120 },
  )
})
