// A charge explained with the ordinary key, and what the logs never say.
import { env } from 'cloudflare:workers'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { forgetNodes } from '../../edge/live_nodes.ts'
import { usageEntrySchema, usageListSchema, usagePrefixSchema } from '../../schema/public_answers.ts'
import {
  type Account,
  admin,
  alarm,
  asCustomer,
  COST,
  call,
  chat,
  flush,
  idOf,
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
afterEach(() => {
  vi.restoreAllMocks()
})

const explain = async (id: string, by: Account = account) => asCustomer(by, `/v1/usage/${id}`)

interface Explained {
  readonly lines: { item: string; quantity?: number; unit_nano?: number; amount_nano: number }[]
  readonly charge_nano: number
}

test('a charge is taken apart line by line, and the lines sum to it', async () => {
  const id = idOf(await chat(account.key, { messages: [{ role: 'user', content: 'x'.repeat(300) }] }))
  await send(node, [
    receiptOf(node, account, id, { hitTokens: 128, missTokens: 30, outputTokens: 7, reasoningTokens: 3, seq: 77 }),
  ])
  await flush(account)
  const usage = await (await explain(id)).json<Explained>()
  expect(usage.lines).toEqual([
    { item: 'cached prompt tokens', quantity: 128, unit_nano: 28, amount_nano: 128 * 28 },
    { item: 'uncached prompt tokens', quantity: 30, unit_nano: 280, amount_nano: 30 * 280 },
    { item: 'output tokens', quantity: 7, unit_nano: 420, amount_nano: 7 * 420 },
  ])
  expect(usage.lines.reduce((sum, line) => sum + line.amount_nano, 0)).toBe(usage.charge_nano)
  expect(usage).toMatchObject({
    state: 'settled',
    tokens: { prompt: 158, cached: 128, uncached: 30, output: 7, reasoning: 3 },
    attempts: [{ attempt: 1, node: 'good', outcome: 'answered' }],
    receipt: { node: 'good', epoch: 'e1', seq: 77 },
  })
})

test('what is told of a charge is what the document says, no field more or less', async () => {
  const id = idOf(await chat(account.key))
  const other = idOf(await chat(account.key))
  const read = async (path: string) => (await asCustomer(account, `/v1/usage${path}`)).json()
  expect(usageEntrySchema.parse(await read(`/${id}`)).state).toBe('open')
  await send(node, [receiptOf(node, account, id), receiptOf(node, account, other, { seq: 2 })])
  await flush(account)
  expect(usageEntrySchema.parse(await read(`/${id}`))).toHaveProperty('receipt')
  expect(usageListSchema.parse(await read('?limit=1')).has_more).toBe(true)
  expect(usagePrefixSchema.parse(await read(`/${other}/prefix`)).compared_with?.request_id).toBe(id)
})

test('before the receipt the hold is shown; an error shows that nothing was charged', async () => {
  const id = idOf(await chat(account.key))
  expect(await (await explain(id)).json()).toMatchObject({ state: 'open', charge_nano: 0, hold: { returned_nano: 0 } })
  await objectOf(account).release(id)
  expect(await (await explain(id)).json()).toMatchObject({ state: 'void', charge_nano: 0, lines: [] })
})

test('failed attempts are listed with their reasons', async () => {
  await registerNode('draining')
  node = await registerNode('good', 50)
  const id = idOf(await chat(account.key))
  await send(node, [receiptOf(node, account, id, { attempt: 2 })])
  await flush(account)
  expect(await (await explain(id)).json()).toMatchObject({
    attempts: [
      { attempt: 1, node: 'draining', outcome: 'node_draining' },
      { attempt: 2, node: 'good', outcome: 'answered' },
    ],
    charge_nano: COST,
  })
})

test('a key sees its own requests only', async () => {
  const id = idOf(await chat(account.key))
  await send(node, [receiptOf(node, account, id, { attempt: 1 })])
  await flush(account)
  const stranger = await openAccount(1e9)
  const made = await (await admin('POST', '/keys', { account: account.id, name: 'other' })).json<{
    id: string
    key: string
  }>()
  const sibling = { ...account, key: made.key, keyId: made.id }
  expect((await explain(id)).status).toBe(200)
  expect((await explain(id, stranger)).status).toBe(404)
  expect((await explain(id, sibling)).status).toBe(404)
  // Whoever asks by the id in an answer of Messages is told which is meant.
  for (const path of [`msg_${id}`, `msg_${id}/prefix`]) {
    const refused = (await (await explain(path)).json()) as { error: { message: string } }
    expect(refused.error.message).toContain('x-request-id')
  }
  expect(await (await asCustomer(sibling, '/v1/usage')).json()).toMatchObject({ data: [] })
})

test('the list is paged, newest first, each request once', async () => {
  const customer = await openAccount(1e9)
  const ids: string[] = []
  for (let i = 0; i < 5; i++) ids.push(idOf(await chat(customer.key)))
  await send(
    node,
    ids.map((id) => receiptOf(node, customer, id)),
  )
  await flush(customer)
  const seen: string[] = []
  for (let after = ''; ; ) {
    const page = await (await asCustomer(customer, `/v1/usage?limit=2${after && `&after=${after}`}`)).json<{
      data: { request_id: string; charge_nano: number }[]
      has_more: boolean
    }>()
    seen.push(...page.data.map(({ request_id }) => request_id))
    after = page.data.at(-1)?.request_id ?? ''
    if (!page.has_more) break
  }
  expect(seen.sort()).toEqual(ids.sort())
  for (const asked of ['limit=1000', 'limit=x', 'limit=', 'from=', 'to=', 'to=-1', 'after=']) {
    const refused = await asCustomer(customer, `/v1/usage?${asked}`)
    expect([asked, refused.status]).toEqual([asked, 422])
    expect(await refused.json()).toMatchObject({ error: { param: asked.split('=')[0] } })
  }
  const inTime = await asCustomer(customer, `/v1/usage?from=0&to=${Date.now() + 60_000}&limit=100`)
  expect((await inTime.json<{ data: object[] }>()).data).toHaveLength(5)
  for (const by of [account, customer]) {
    const unknown = await asCustomer(by, `/v1/usage?after=${by === account ? ids[0] : crypto.randomUUID()}`)
    expect([unknown.status, await unknown.text()]).toEqual([422, expect.stringContaining('after')])
  }
})

test('a list shows what is kept, however long ago, and for however many keys', async () => {
  const customer = await openAccount(1e9)
  const id = idOf(await chat(customer.key))
  await send(node, [receiptOf(node, customer, id)])
  await flush(customer)
  const DAY_MS = 24 * 3_600_000
  await env.DB.prepare('UPDATE usage SET settled_at = settled_at - ? WHERE request_id = ?')
    .bind(80 * DAY_MS, id)
    .run()
  const key = env.DB.prepare(
    "INSERT INTO api_keys (id, account_id, name, key_hash, family, last_four, created_at) VALUES (?1, ?2, 'k', ?1, ?3, 'xxxx', 0)",
  )
  await env.DB.batch(
    Array.from({ length: 120 }, (_, i) => key.bind(`k${i}-${customer.id}`, customer.id, customer.keyId)),
  )
  const list = await asCustomer(customer, '/v1/usage')
  expect([list.status, await list.json()]).toMatchObject([200, { data: [{ request_id: id }], has_more: false }])
  expect((await explain(id, customer)).status).toBe(200)
})

test('before its row is in D1 a settled hold says what it gave back', async () => {
  const id = idOf(await chat(account.key))
  await send(node, [receiptOf(node, account, id)])
  const { hold, charge_nano: charge } = await (await explain(id)).json<{
    hold: { amount_nano: number; returned_nano: number }
    charge_nano: number
  }>()
  expect([charge, hold.returned_nano]).toEqual([COST, hold.amount_nano - COST])
})

test('logs hold no prompt, no key, no signature, whatever fails', async () => {
  const written: string[] = []
  for (const level of ['log', 'info', 'warn', 'error', 'debug'] as const) {
    vi.spyOn(console, level).mockImplementation((...parts: unknown[]) => void written.push(parts.map(String).join(' ')))
  }
  const secretPrompt = 'my-secret-prompt'
  const ask = { messages: [{ role: 'user', content: secretPrompt }] }
  const headers = { authorization: `Bearer ${account.key}` }
  // A body that does not parse; a node that breaks, one that is down; a table that is away under look-up, outbox and receipts.
  await call('/v1/chat/completions', { method: 'POST', headers, body: `{"model": ${secretPrompt}` })
  await removeNodes()
  await registerNode('breaks')
  await (await chat(account.key, { ...ask, stream: true })).text()
  await removeNodes()
  await registerNode('down')
  await chat(account.key, ask)
  await removeNodes()
  node = await registerNode('good')
  const id = idOf(await chat(account.key, ask))
  const receipt = receiptOf(node, account, id, { prefix: [['p'.repeat(24), 64]] })
  const away = async (table: string, work: () => Promise<unknown>): Promise<void> => {
    await env.DB.prepare(`ALTER TABLE ${table} RENAME TO ${table}_away`).run()
    await work().catch(() => {})
    await env.DB.prepare(`ALTER TABLE ${table}_away RENAME TO ${table}`).run()
  }
  await away('prefix_blocks', () => send(node, [receipt]))
  await away('usage', () => alarm(account))
  forgetNodes()
  await away('nodes', () => chat(account.key, ask))
  await away('nodes', () => send(node, [receipt]))
  await away('api_keys', () => asCustomer(account, '/v1/usage'))
  await away('audit_log', () => admin('POST', '/keys', { account: account.id, name: 'k' }))
  await flush(account)
  const signature = await env.DB.prepare('SELECT signature FROM usage WHERE request_id = ?')
    .bind(id)
    .first<string>('signature')
  const everything = written.join('\n')
  const events = written.map((line) => (JSON.parse(line) as { event: string }).event)
  expect(events).toEqual(expect.arrayContaining(['stream_interrupted', 'lookup_failed', 'outbox_failed', 'exception']))
  for (const secret of [
    secretPrompt,
    account.key,
    'sk-',
    'Bearer',
    signature ?? '?',
    env.SPARROW_SECRET,
    env.ADMIN_SECRET,
  ]) {
    expect(everything).not.toContain(secret)
  }
})
