// Requests that come again: `Idempotency-Key` on whole and streamed answers, and SDK retries without one. Whatever comes again,
// the account pays once.
import { runInDurableObject } from 'cloudflare:test'
import { beforeAll, beforeEach, expect, test } from 'vitest'
import { keeper } from '../../edge/flow/repeat.ts'
import {
  IDEMPOTENCY_KEPT_MS,
  IDEMPOTENCY_KEYS_MAX,
  OUTCOME_BYTES_MAX,
  OUTCOMES_BYTES_MAX,
} from '../../schema/limits.ts'
import {
  type Account,
  admissionOf,
  asCustomer,
  COST,
  chat,
  flush,
  idOf,
  MODEL,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  removeNodes,
  send,
  type TestNode,
} from './world.ts'

let node: TestNode
let account: Account
beforeAll(async () => {
  account = await openAccount(1e9)
})
beforeEach(async () => {
  await removeNodes()
  node = await registerNode('good')
})

const keyed = (key: string, body: object = {}, by: Account = account) => chat(by.key, body, { 'idempotency-key': key })
const codeOf = async (response: Response) => (await response.json<{ error: { code: string } }>()).error.code
const held = async (by: Account = account) => (await objectOf(by).balance()).heldNano

/** The outcome is stored behind the answer's back. */
const again = async (key: string, body: object = {}, by: Account = account): Promise<Response> => {
  for (;;) {
    const response = await keyed(key, body, by)
    if (response.status !== 409) return response
    if ((await codeOf(response.clone())) !== 'idempotency_in_progress') return response
    await new Promise((done) => setTimeout(done, 20))
  }
}

test.each([{ stream: false }, { stream: true }])('the stored outcome is replayed byte for byte: %j', async (body) => {
  const key = crypto.randomUUID()
  const first = await keyed(key, body)
  const text = await first.text()
  await send(node, [receiptOf(node, account, idOf(first))])
  const before = (await objectOf(account).balance()).balanceNano
  const second = await again(key, body)
  expect(second.headers.get('idempotent-replayed')).toBe('true')
  expect(second.headers.get('content-type')).toBe(first.headers.get('content-type') ?? '')
  expect(idOf(second)).toBe(idOf(first))
  expect(await second.text()).toBe(text)
  expect(await held()).toBe(0)
  expect((await objectOf(account).balance()).balanceNano).toBe(before)
})

test('of twenty at once one runs; the others are told to wait', async () => {
  const key = crypto.randomUUID()
  const answers = await Promise.all(Array.from({ length: 20 }, () => keyed(key)))
  const fresh = answers.filter((a) => a.status === 200 && !a.headers.has('idempotent-replayed'))
  expect(fresh).toHaveLength(1)
  for (const answer of answers.filter(({ status }) => status !== 200)) {
    expect(answer.status).toBe(409)
    expect(answer.headers.get('retry-after')).toBe('1')
    expect(answer.headers.get('x-should-retry')).toBe('true')
  }
  await send(node, [receiptOf(node, account, idOf(fresh[0] as Response))])
})

test('another body under the same key is refused, and runs nothing', async () => {
  const key = crypto.randomUUID()
  const first = await keyed(key)
  const other = await keyed(key, { temperature: 0.5 })
  expect([other.status, await codeOf(other)]).toEqual([422, 'idempotency_mismatch'])
  await send(node, [receiptOf(node, account, idOf(first))])
  expect(await held()).toBe(0)
})

test("one key's outcome is not shown to another key of the account", async () => {
  const other = await openAccount(1e9)
  const key = crypto.randomUUID()
  await keyed(key)
  expect((await keyed(key, {}, other)).headers.has('idempotent-replayed')).toBe(false)
})

test('what failed before any token frees the key: the retry runs, and is charged once', async () => {
  const key = crypto.randomUUID()
  await removeNodes()
  expect((await keyed(key)).status).toBe(503)
  node = await registerNode('good')
  const before = (await objectOf(account).balance()).balanceNano
  const second = await again(key)
  expect(second.status).toBe(200)
  await send(node, [receiptOf(node, account, idOf(second))])
  expect((await again(key)).headers.get('idempotent-replayed')).toBe('true')
  expect((await objectOf(account).balance()).balanceNano).toBe(before - COST)
})

test('a client that leaves in mid-stream finds the whole answer under its key', async () => {
  const key = crypto.randomUUID()
  const first = await keyed(key, { stream: true })
  const reader = first.body?.getReader()
  await reader?.read()
  await reader?.cancel()
  await send(node, [receiptOf(node, account, idOf(first))])
  const second = await again(key, { stream: true })
  expect(await second.text()).toBe('data: {"whole":1}\n\ndata: [DONE]\n\n')
})

test('a stream that broke is replayed as it broke: it is not run, nor charged, again', async () => {
  await removeNodes()
  await registerNode('breaks')
  const key = crypto.randomUUID()
  const text = await (await keyed(key, { stream: true })).text()
  expect(text).toContain('stream_interrupted')
  expect(await (await again(key, { stream: true })).text()).toBe(text)
})

test('an outcome that never came is not run again: 409, not to be retried', async () => {
  const request = admissionOf(account, { idempotencyKey: 'lost', fingerprint: 'f' })
  const object = objectOf(account)
  await object.admit(request)
  const twin = () => object.admit({ ...request, requestId: crypto.randomUUID() })
  expect(await twin()).toMatchObject({ kind: 'refused', error: { code: 'idempotency_in_progress' } })
  await send(node, [receiptOf(node, account, request.requestId)])
  expect(await twin()).toMatchObject({ kind: 'refused', error: { code: 'idempotency_in_progress' } })
  await runInDurableObject(object, (_object, state) => {
    state.storage.sql.exec('UPDATE holds SET closed_at = closed_at - 780000 WHERE request_id = ?', request.requestId)
  })
  expect(await twin()).toMatchObject({ kind: 'refused', error: { code: 'idempotency_in_progress' } })
  await runInDurableObject(object, (_object, state) => {
    state.storage.sql.exec('UPDATE holds SET closed_at = closed_at - 121000 WHERE request_id = ?', request.requestId)
  })
  expect(await twin()).toMatchObject({ kind: 'refused', error: { code: 'idempotency_lost' } })
})

const streamOf = (pieces: readonly Uint8Array[]): ReadableStream =>
  new ReadableStream({
    start: (controller) => {
      for (const piece of pieces) controller.enqueue(piece)
      controller.close()
    },
  })

test('an answer that cannot be read, or is longer than is kept, is said to be lost', async () => {
  const told: unknown[][] = []
  const stub = { keepOutcome: async (...args: unknown[]) => void told.push(args) }
  const keep = keeper(stub as unknown as Parameters<typeof keeper>[0], 'id')
  const broken = new ReadableStream({ start: (controller) => controller.error(new Error('broken')) })
  // Noise: gzip makes it no shorter.
  const piece = () => crypto.getRandomValues(new Uint8Array(65_536))
  const pieces = Array.from({ length: OUTCOME_BYTES_MAX / 65_536 }, piece)
  for (const body of [broken, streamOf(pieces)]) await keep(body, 'text/plain')
  await keep(streamOf(pieces.slice(1, -1)), 'text/plain')
  expect(told.map(([, , bytes]) => bytes !== undefined)).toEqual([false, false, true])
})

test('an account remembers so many keys, and refuses more rather than forget one', async () => {
  const customer = await openAccount(1e9)
  await runInDurableObject(objectOf(customer), (_object, state) => {
    state.storage.sql.exec(
      `WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < ?1)
      INSERT INTO outcomes SELECT 'f', 'k' || i, 'f', 'r' || i, 'lost', NULL, 0, ?2, NULL FROM c`,
      ...[IDEMPOTENCY_KEYS_MAX - 1, Date.now()],
    )
  })
  const admit = async (idempotencyKey: string | null) =>
    objectOf(customer).admit(admissionOf(customer, { idempotencyKey, fingerprint: 'f' }))
  expect(await admit('last')).toMatchObject({ kind: 'admitted' })
  expect(await admit('more')).toMatchObject({ kind: 'refused', error: { code: 'rate_limit_exceeded' } })
  expect(await admit('last')).toMatchObject({ kind: 'refused', error: { code: 'idempotency_in_progress' } })
  expect(await admit(null)).toMatchObject({ kind: 'admitted' })
})

test('the same body for another endpoint is another request', async () => {
  const key = crypto.randomUUID()
  const body = JSON.stringify({
    model: MODEL,
    prompt: 'Hi',
    messages: [{ role: 'user', content: 'Hi' }],
    max_tokens: 5,
  })
  const ask = (path: string) => asCustomer(account, path, { method: 'POST', body, headers: { 'idempotency-key': key } })
  const first = await ask('/v1/chat/completions')
  expect(first.status).toBe(200)
  const other = await ask('/v1/completions')
  expect([other.status, await codeOf(other)]).toEqual([422, 'idempotency_mismatch'])
  await send(node, [receiptOf(node, account, idOf(first))])
})

test('storage is bounded: the oldest bodies go, their keys stay shut, and after a day all is forgotten', async () => {
  const small = await openAccount(1e12)
  const object = objectOf(small)
  const count = OUTCOMES_BYTES_MAX / OUTCOME_BYTES_MAX + 2
  const requests = Array.from({ length: count }, (_, i) =>
    admissionOf(small, { idempotencyKey: `k${i}`, fingerprint: 'f' }),
  )
  for (const request of requests) {
    await object.admit(request)
    await object.keepOutcome(request.requestId, 'text/plain', new Uint8Array(OUTCOME_BYTES_MAX))
  }
  const retry = (i: number) =>
    object.admit({ ...(requests[i] as (typeof requests)[0]), requestId: crypto.randomUUID() })
  for (const gone of [0, 1])
    expect(await retry(gone)).toMatchObject({ kind: 'refused', error: { code: 'idempotency_lost' } })
  for (const there of [2, count - 1]) expect((await retry(there)).kind).toBe('replay')
  const stored = (state: DurableObjectState) =>
    state.storage.sql.exec<{ n: number }>('SELECT coalesce(sum(length(part)), 0) AS n FROM outcome_parts').one().n
  await runInDurableObject(object, (_object, state) => {
    expect(stored(state)).toBeLessThanOrEqual(OUTCOMES_BYTES_MAX)
    state.storage.sql.exec('UPDATE outcomes SET created_at = created_at - ?', IDEMPOTENCY_KEPT_MS)
  })
  // One whose body is still there.
  expect((await retry(2)).kind).toBe('admitted')
  await flush(small)
  await runInDurableObject(object, (_object, state) => {
    expect(stored(state)).toBe(0)
    expect(state.storage.sql.exec<{ n: number }>('SELECT count(*) AS n FROM outcomes').one().n).toBe(1)
  })
})

test('an SDK that sends the same body again pays for the dearer of the two, whichever receipt comes first', async () => {
  for (const order of [
    [0, 1, 2],
    [2, 0, 1],
    [1, 2, 0],
  ]) {
    const customer = await openAccount(1e9)
    const before = (await objectOf(customer).balance()).balanceNano
    const tries = [0, 1, 2].map((count) => () => chat(customer.key, {}, { 'x-stainless-retry-count': String(count) }))
    const ids: string[] = []
    for (const attempt of tries) ids.push(idOf(await attempt()))
    const outputs = [2, 7, 5]
    for (const i of order) {
      await send(node, [
        receiptOf(node, customer, ids[i] ?? '', { outputTokens: outputs[i] ?? 0, finish: 'cancelled' }),
      ])
    }
    expect((await objectOf(customer).balance()).balanceNano).toBe(before - 10 * 280 - 7 * 420)
    await flush(customer)
    const explained = await Promise.all(
      ids.map(async (id) =>
        (await asCustomer(customer, `/v1/usage/${id}`)).json<{
          charge_nano: number
          lines: { amount_nano: number }[]
        }>(),
      ),
    )
    for (const { charge_nano, lines } of explained) {
      expect(lines.reduce((sum, line) => sum + line.amount_nano, 0)).toBe(charge_nano)
    }
  }
})

test('tries join the first of them for ten minutes, however often they come', async () => {
  const customer = await openAccount(1e9)
  const again = async (count: number) =>
    idOf(await chat(customer.key, {}, { 'x-stainless-retry-count': String(count) }))
  const age = (minutes: number) =>
    runInDurableObject(objectOf(customer), (_object, state) => {
      state.storage.sql.exec('UPDATE holds SET created_at = created_at - ?', minutes * 60_000)
    })
  const groups: (string | null)[] = []
  for (const count of [0, 1, 2, 3]) {
    const id = await again(count)
    groups.push((await objectOf(customer).holdOf(id))?.retryOf ?? null)
    await send(node, [receiptOf(node, customer, id)])
    await age(6)
  }
  // 0, 6, 12 and 18 minutes after the first.
  expect(groups.map((group) => group !== null)).toEqual([false, true, false, true])
  expect((await objectOf(customer).balance()).balanceNano).toBe(1e9 - 2 * COST)
})

test('a header on every request makes no more of them free than an SDK would try', async () => {
  const customer = await openAccount(1e9)
  for (let i = 0; i < 23; i++) {
    const id = idOf(await chat(customer.key, {}, { 'x-stainless-retry-count': '1' }))
    await send(node, [receiptOf(node, customer, id)])
  }
  // One and its ten tries are charged as one: 11, 11 and 1.
  expect((await objectOf(customer).balance()).balanceNano).toBe(1e9 - 3 * COST)
})

test('the same body without a retry count is a request of its own', async () => {
  const customer = await openAccount(1e9)
  for (let i = 0; i < 2; i++) {
    const id = idOf(await chat(customer.key, {}, { 'x-stainless-retry-count': '0' }))
    await send(node, [receiptOf(node, customer, id)])
  }
  expect((await objectOf(customer).balance()).balanceNano).toBe(1e9 - 2 * COST)
})

test('keys that are no keys are refused', async () => {
  expect((await keyed('')).status).toBe(400)
  expect((await keyed('x'.repeat(256))).status).toBe(400)
})
