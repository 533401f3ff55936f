// Bodies at the edge: bounds, what is no text or no JSON, names that stand for models, browsers, and whatever a fuzzer thinks of.
import { env } from 'cloudflare:workers'
import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import type { Env } from '../../edge/env.ts'
import worker from '../../edge/index.ts'
import { signAdminCall } from '../../schema/admin_call.ts'
import { templateName } from '../../schema/chat/template_source.ts'
import { signCall } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import type { Run, RunRequest } from '../../schema/wire.ts'
import { type Account, admin, call, chat, MODEL, openAccount, registerNode, removeNodes } from './world.ts'

let account: Account
beforeAll(async () => {
  account = await openAccount(1_000_000_000_000)
})
beforeEach(() => registerNode('mirror'))
afterEach(removeNodes)

/** No object of it alone is over the bound. */
const WIDE = Object.fromEntries(Array.from({ length: 90_000 }, (_, i) => [i, 0]))
const PATH = '/v1/chat/completions'
const post = (body: BodyInit, headers: Record<string, string> = {}, path = PATH): Promise<Response> =>
  call(path, { method: 'POST', headers: { authorization: `Bearer ${account.key}`, ...headers }, body })

const errorOf = async (response: Response) => {
  const { error } = await response.json<{ error: { code: string; message: string; param: string | null } }>()
  return { status: response.status, ...error }
}

const asked = async (extra: object): Promise<RunRequest> => {
  const response = await chat(account.key, extra)
  if (!response.ok) throw new Error(await response.text())
  return response.json<RunRequest>()
}
const runOf = async (extra: object): Promise<Run> => (await asked(extra)).run

const bodyOf = (extra: string): string => `{"model":"${MODEL}","messages":[{"role":"user","content":"x"}]${extra}}`

test.each<[string, BodyInit, Record<string, string>, number, string, RegExp]>([
  ['nothing', '', {}, 400, 'malformed_request', /JSON/],
  ['half a character', new Uint8Array([0x22, 0xc3]), {}, 400, 'malformed_request', /UTF-8/],
  ['compressed', bodyOf(''), { 'content-encoding': 'gzip' }, 400, 'malformed_request', /compressed/],
  ['deep arrays', '['.repeat(100_000) + ']'.repeat(100_000), {}, 400, 'malformed_request', /nested/],
  ['wide objects', JSON.stringify({ a: WIDE, b: [WIDE, { c: WIDE }] }), {}, 413, 'request_too_large', /members/],
  ['deep objects', `${'{"a":'.repeat(101)}1${'}'.repeat(101)}`, {}, 400, 'malformed_request', /nested/],
  ['infinite', bodyOf(',"temperature":1e999'), {}, 422, 'invalid_parameter', /^temperature: /],
  ['huge', bodyOf(',"max_tokens":99999999999999999999'), {}, 422, 'invalid_parameter', /^max_tokens: /],
  ['one byte too many', ' '.repeat(8 * 1024 * 1024 + 1), {}, 413, 'request_too_large', /8388608/],
])('%s', async (_name, body, headers, status, code, message) => {
  const error = await errorOf(await post(body, headers))
  expect(error).toMatchObject({ status, code })
  expect(error.message).toMatch(message)
})

/** Without a length in its head; counts what was read of it. */
const endless = () => {
  const state = { read: 0 }
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      state.read += 1024 * 1024
      if (state.read > 64 * 1024 * 1024) controller.close()
      else controller.enqueue(new Uint8Array(1024 * 1024).fill(0x20))
    },
  })
  return { state, body }
}

const byNode = async (): Promise<string> => {
  const node = await registerNode('good')
  return signCall(node.privateKey, 'EdDSA', node.id, 'edge', utf8(''))
}
const ADMIN = '/admin/v1/accounts'
const byOperator = (): Promise<string> =>
  signAdminCall(env.ADMIN_SECRET, { method: 'POST', path: ADMIN, idempotencyKey: undefined, body: utf8('') })

test.each([
  [PATH, async () => `Bearer ${account.key}`],
  ['/internal/receipts', byNode],
  ['/internal/heartbeat', byNode],
  ['/internal/register', async () => `Bearer ${env.JOIN_TOKEN}`],
  [ADMIN, byOperator],
])('a body without a length is read as far as it may be, also by whom is known: %s', async (path, signed) => {
  const authorization = await signed()
  const { state, body } = endless()
  const response = await worker.fetch(
    new Request(`http://edge.test${path}`, {
      ...{ method: 'POST', body, duplex: 'half', headers: { authorization } },
    }),
    env as unknown as Env,
    { waitUntil: () => {}, passThroughOnException: () => {} } as unknown as ExecutionContext,
  )
  expect(await errorOf(response)).toMatchObject({ status: 413, code: 'request_too_large' })
  expect(state.read).toBeLessThan(16 * 1024 * 1024)
})

test('a body of 8 MB is taken', async () => {
  const body = bodyOf('')
  const response = await post(body + ' '.repeat(8 * 1024 * 1024 - body.length))
  expect(response.status).toBe(200)
})

test('an alias stands for the model that nodes serve, and for whether it thinks', async () => {
  expect(await runOf({ model: 'deepseek-chat' })).toMatchObject({
    ...{ model: MODEL, shownModel: 'deepseek-chat', thinking: false },
  })
  expect(await runOf({ model: 'deepseek-reasoner' })).toMatchObject({ model: MODEL, thinking: true })
  expect(await runOf({ model: 'deepseek-reasoner', thinking: { type: 'disabled' } })).toMatchObject({ thinking: false })
  expect((await runOf({})).shownModel).toBeUndefined()
})

test('a name that nothing is behind: 404, and 503 where its nodes are only away', async () => {
  expect(await errorOf(await chat(account.key, { model: 'deepseek-charm' }))).toMatchObject({ code: 'model_not_found' })
  await removeNodes()
  expect(await errorOf(await chat(account.key, { model: 'deepseek-chat' }))).toMatchObject({ code: 'no_node' })
})

test('user_id shares no cached prompt with anyone, prompt_cache_key shares all', async () => {
  const messages = [{ role: 'user', content: 'long '.repeat(200) }]
  const [plain, same, hinted, a, b] = await Promise.all(
    [{}, {}, { prompt_cache_key: 'k' }, { user_id: 'a' }, { user_id: 'b' }].map((extra) =>
      asked({ messages, ...extra }),
    ),
  )
  expect(plain?.prefixKeys.length).toBeGreaterThan(2)
  expect(same).toMatchObject({ prefixKeys: plain?.prefixKeys, cacheSalt: plain?.cacheSalt })
  expect(hinted).toMatchObject({ prefixKeys: plain?.prefixKeys, cacheSalt: plain?.cacheSalt })
  expect(new Set([plain, a, b].map((request) => request?.cacheSalt)).size).toBe(3)
  expect(new Set([plain, a, b].map((request) => request?.prefixKeys[0])).size).toBe(3)
})

test('a browser may send what the SDKs send, and read what they read', async () => {
  const asks = 'authorization,content-type,idempotency-key,x-stainless-lang,x-stainless-retry-count'
  const preflight = await call(PATH, {
    method: 'OPTIONS',
    headers: {
      origin: 'https://app.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': asks,
    },
  })
  expect(preflight.status).toBe(204)
  expect(preflight.headers.get('access-control-allow-origin')).toBe('*')
  expect(preflight.headers.get('access-control-allow-methods')).toContain('POST')
  expect(preflight.headers.get('access-control-allow-headers')).toBe(asks)
  expect(Number(preflight.headers.get('access-control-max-age'))).toBeGreaterThan(600)
  for (const response of [
    await post(bodyOf(''), { origin: 'https://app.example' }),
    await post('{', { origin: 'null' }),
    await call(PATH, { method: 'POST', body: '{}' }),
    await call('/nowhere'),
  ]) {
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    const exposed = response.headers.get('access-control-expose-headers') ?? ''
    for (const name of ['x-request-id', 'retry-after', 'x-ratelimit-remaining-tokens', 'x-ratelimit-limit-requests'])
      expect(exposed.split(',')).toContain(name)
    expect(response.headers.get('x-request-id')).toBeTruthy()
  }
})

test('a checkpoint that brings a chat template is rendered with it, here', async () => {
  const source = {
    template: '{% for m in messages %}<u>{{ m.content }}{% endfor %}{% if thinking %}<think>{% endif %}',
    ...{ bos: '<s>', eos: '</s>', specials: ['<s>', '</s>', '<u>'] },
  }
  await removeNodes()
  await registerNode('mirror', 0, { model: 'templated', chatFormat: templateName(source), template: source })
  await admin('PUT', '/prices', { model: 'templated', hitNano: 1, missNano: 1, outputNano: 1 })
  const messages = [{ role: 'user', content: 'a <u> b' }]
  const wanted = { model: 'templated', messages, thinking: { type: 'enabled' } }
  const run = await vi.waitFor(() => runOf(wanted), 30_000) // an object asks for new prices once a second
  expect(run).toMatchObject({ prompt: '<u>a <\u2060u> b<think>', thinking: true, chatFormat: templateName(source) })
  expect(await runOf({ model: 'deepseek-chat', messages })).toMatchObject({ model: 'templated', thinking: false })
  const completion = await post(JSON.stringify({ model: 'templated', prompt: 'One' }), {}, '/beta/completions')
  expect(await completion.json()).toMatchObject({ run: { prompt: '<s>One', raw: true } })
})

test('a node cannot pass a template off as another', async () => {
  const source = { template: 'x', bos: '', eos: '', specials: [] }
  for (const registration of [
    { chatFormat: templateName(source), template: { ...source, template: 'y' } },
    { chatFormat: templateName(source) },
    { chatFormat: 'deepseek_v32', template: source },
  ])
    await expect(registerNode('good', 0, registration)).rejects.toThrow(/not the name of the template/)
})

const word = fc.oneof(
  fc.constantFrom(MODEL, 'deepseek-chat', 'user', 'assistant', 'system', 'tool', 'developer', 'function', 'text'),
  fc.constantFrom(
    'json_object',
    'json_schema',
    'enabled',
    'disabled',
    'auto',
    'none',
    'required',
    '<think>',
    '｜DSML｜',
  ),
  fc.string({ unit: 'binary', maxLength: 6 }),
)
const number = fc.oneof(fc.integer({ min: -2, max: 20 }), fc.constantFrom(1e308, -0, 0.5, 2 ** 53, -1e-300))
const junk = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(null, true, false),
    number,
    word,
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(fc.oneof(word, fc.constantFrom('type', 'function', 'name', '__proto__', 'schema')), tie('value'), {
      maxKeys: 4,
    }),
  ),
})).value
const either = (sane: fc.Arbitrary<unknown>) => fc.oneof({ weight: 3, arbitrary: sane }, { weight: 1, arbitrary: junk })
const part = fc.record({ type: fc.constantFrom('text', 'image_url'), text: word })
const turn = fc.record(
  {
    role: either(fc.constantFrom('system', 'user', 'assistant', 'tool', 'developer')),
    content: either(fc.oneof(word, fc.array(part, { maxLength: 2 }))),
    reasoning_content: either(word),
    prefix: either(fc.boolean()),
    tool_call_id: either(fc.constantFrom('a', 'b')),
    tool_calls: either(
      fc.array(fc.record({ id: fc.constantFrom('a', 'b'), function: fc.record({ name: word, arguments: word }) }), {
        maxLength: 2,
      }),
    ),
  },
  { requiredKeys: ['role', 'content'] },
)
const tool = fc.record({
  type: fc.constant('function'),
  function: fc.record({ name: fc.constantFrom('f', 'g'), parameters: either(junk), strict: either(fc.boolean()) }),
})
const KNOWN = [
  ...[
    'thinking',
    'reasoning_effort',
    'max_completion_tokens',
    'temperature',
    'top_p',
    'top_k',
    'stop',
    'seed',
    'n',
    'echo',
  ],
  ...[
    'logprobs',
    'top_logprobs',
    'logit_bias',
    'stream',
    'stream_options',
    'tool_choice',
    'response_format',
    'user_id',
  ],
  ...[
    'frequency_penalty',
    'presence_penalty',
    'min_tokens',
    'user',
    'metadata',
    'parallel_tool_calls',
    'suffix',
    'best_of',
  ],
]
const bodies = fc
  .tuple(
    fc.record({
      model: either(fc.constantFrom(MODEL, 'deepseek-reasoner')),
      messages: either(fc.array(turn, { maxLength: 4 })),
    }),
    fc.record({ prompt: either(word), tools: either(fc.array(tool, { maxLength: 2 })) }, { requiredKeys: [] }),
    fc.dictionary(fc.constantFrom(...KNOWN), junk, { maxKeys: 3 }),
  )
  .map(([base, some, extra]) => JSON.stringify({ max_tokens: 5, ...base, ...some, ...extra }))

test('whatever the body, the answer is one that a client can act on', async () => {
  const seen = new Map<number, number>()
  let runs = 0
  // The isolate learns within a quarter of a second that there is a node again.
  await vi.waitFor(() => runOf({ model: 'deepseek-reasoner' }), 30_000)
  const paths = fc.constantFrom('/v1/chat/completions', '/beta/completions')
  await fc.assert(
    fc.asyncProperty(
      paths,
      fc.oneof({ weight: 9, arbitrary: bodies }, { weight: 1, arbitrary: fc.json() }),
      async (path, body) => {
        // No receipt settles what the mirror answers, and an account has a bound on open runs.
        if (runs++ % 200 === 0) account = await openAccount(1_000_000_000_000)
        const response = await post(body, {}, path)
        seen.set(response.status, (seen.get(response.status) ?? 0) + 1)
        const text = await response.text()
        expect([200, 400, 404, 413, 422], `${body}\n${text}`).toContain(response.status)
        const json = JSON.parse(text) as { error?: { message: string } }
        if (response.status !== 200) expect(json.error?.message).toBeTruthy()
      },
    ),
    { numRuns: Number(process.env.FUZZ_RUNS ?? 300) },
  )
  // Neither all refused nor all taken, or the bodies prove nothing.
  expect(seen.get(200) ?? 0).toBeGreaterThan(5)
  expect(seen.get(422) ?? 0).toBeGreaterThan(5)
}, 300_000)
