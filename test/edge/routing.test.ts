// Where requests go, what the prefix index knows and forgets, and what a detour costs: real D1 and account objects.
import {
  createExecutionContext,
  createScheduledController,
  runInDurableObject,
  waitOnExecutionContext,
} from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeAll, expect, test } from 'vitest'
import type { Env } from '../../edge/env.ts'
import worker from '../../edge/index.ts'
import { LOOKUP, lookup, recording, SWEEP, sweepPrefixes } from '../../edge/prefix.ts'
import { openAiChat } from '../../schema/dialects/openai_chat.ts'
import { prefixKeys } from '../../schema/prefix.ts'
import type { Receipt } from '../../schema/wire.ts'
import {
  type Account,
  admin,
  asCustomer,
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

const DAY_MS = 24 * 3_600_000
const messages = [{ role: 'user', content: 'The same beginning, many times over. '.repeat(60) }]

let account: Account
beforeAll(async () => {
  account = await openAccount(1e10)
})
afterEach(removeNodes)

/** Keys of the prompt that `chat(key, { messages })` renders. */
const keysOf = (of: Account): string[] => {
  const body = { model: MODEL, messages, max_tokens: 10 }
  const run = openAiChat.parse(body, {
    ...{ requestId: crypto.randomUUID(), created: 0, seed: '0', bodyText: JSON.stringify(body) },
  })
  if (!run.ok) throw new Error(run.error.message)
  const { model, chatFormat, prompt } = run.value
  return prefixKeys(env.SPARROW_SECRET, { accountId: of.id, model, chatFormat }, prompt)
}

/** Asks, and has the node that answered say what it holds. */
const ask = async (by: Account, nodes: Record<string, TestNode>, hitTokens: number): Promise<[string, string]> => {
  const response = await chat(by.key, { messages })
  const { node = 'good' } = await response.json<{ node?: string }>()
  const keys = keysOf(by)
  const prefix = keys.map((key, i): [string, number] => [key, (i + 1) * 64])
  const teller = nodes[node]
  if (!teller) throw new Error(`no node ${node}`)
  const missTokens = keys.length * 64 + 10 - hitTokens
  await send(teller, [receiptOf(teller, by, idOf(response), { prefix, hitTokens, missTokens })])
  return [idOf(response), node]
}

test('a prompt goes back to the node that holds it, until that node is saturated: then it spreads, and the detour is credited', async () => {
  const nodes = { good: await registerNode('good'), other: await registerNode('other') }
  const [, first] = await ask(account, nodes, 0)
  for (let i = 0; i < 3; i++) expect((await ask(account, nodes, 512))[1]).toBe(first)
  await env.DB.prepare('UPDATE nodes SET running = 200 WHERE id = ?').bind(first).run()
  const [id, second] = await ask(account, nodes, 0)
  expect(second).not.toBe(first)
  await flush(account)
  const explained = await (await asCustomer(account, `/v1/usage/${id}`)).json<{
    charge_nano: number
    credit_nano: number
    lines: { item: string; quantity?: number; amount_nano: number }[]
  }>()
  const held = keysOf(account).length * 64
  expect(explained.credit_nano).toBe(held * (280 - 28))
  expect(explained.lines.at(-1)).toMatchObject({ quantity: held, amount_nano: -held * 252 })
  expect(explained.charge_nano).toBe(held * 28 + 10 * 280 + 5 * 420)
  // Both hold it now: nothing is credited any more.
  const [again] = await ask(account, nodes, 512)
  await flush(account)
  expect(await (await asCustomer(account, `/v1/usage/${again}`)).json()).toMatchObject({ credit_nano: 0 })
  expect(await (await admin('GET', '/audit')).json()).toMatchObject({ ok: true, findings: [] })
})

test('of two nodes that both hold more tokens than a prompt of English has, the one that holds most is asked', async () => {
  const dense = await openAccount(1e10)
  const nodes = [await registerNode('good'), await registerNode('other')] as const
  const keys = keysOf(dense)
  // A token for two bytes, as of digits or code.
  const holds = (count: number): [string, number][] => keys.slice(0, count).map((key, i) => [key, (i + 1) * 128])
  for (const [more, less] of [nodes, [nodes[1], nodes[0]] as const]) {
    await env.DB.prepare('DELETE FROM prefix_blocks').run()
    const told = [receiptOf(more, dense, 'a', { prefix: holds(8) }), receiptOf(less, dense, 'b', { prefix: holds(5) })]
    await env.DB.batch(recording(env.DB, env.SPARROW_SECRET, told))
    const { node = 'good' } = await (await chat(dense.key, { messages })).json<{ node?: string }>()
    expect(node).toBe(more.id)
  }
})

test.each(['account', 'key'])('an %s can decline the credit', async (of) => {
  const plain = await openAccount(1e10)
  const path = of === 'key' ? `/keys/${plain.keyId}/limits` : `/accounts/${plain.id}/limits`
  expect((await admin('PUT', path, { affinityCredit: false })).status).toBe(200)
  const nodes = { good: await registerNode('good'), other: await registerNode('other') }
  const [, first] = await ask(plain, nodes, 0)
  await env.DB.prepare('UPDATE nodes SET running = 200 WHERE id = ?').bind(first).run()
  const [id] = await ask(plain, nodes, 0)
  await flush(plain)
  expect(await (await asCustomer(plain, `/v1/usage/${id}`)).json()).toMatchObject({ credit_nano: 0 })
})

test('a prompt that is scored is computed whole wherever it lies: nothing is predicted, or credited', async () => {
  const scorer = await openAccount(1e10)
  const [good, other] = [await registerNode('good'), await registerNode('other', 200)]
  const prompt = 'The same beginning, many times over. '.repeat(60)
  const score = (body: object) =>
    asCustomer(scorer, '/v1/completions', {
      method: 'POST',
      body: JSON.stringify({ model: MODEL, prompt, max_tokens: 5, ...body }),
    })
  const creditOf = async (body: object): Promise<number> => {
    const id = idOf(await score(body))
    await send(good, [receiptOf(good, scorer, id, { missTokens: 500 })])
    return (await objectOf(scorer).holdOf(id))?.credits.length ?? -1
  }
  const scope = { accountId: scorer.id, model: MODEL, chatFormat: 'deepseek_v32' }
  const keys = prefixKeys(env.SPARROW_SECRET, scope, `<｜begin▁of▁sentence｜>${prompt}`)
  const prefix = keys.map((key, i): [string, number] => [key, (i + 1) * 64])
  await env.DB.batch(recording(env.DB, env.SPARROW_SECRET, [receiptOf(other, scorer, 'a', { prefix })]))
  expect(await creditOf({})).toBe(1)
  expect(await creditOf({ echo: true, logprobs: 0 })).toBe(0)
})

test('of several prompts the detour of the first is credited whole, whatever of the others was cached', async () => {
  const batch = await openAccount(1e10)
  const [good, other] = [await registerNode('good'), await registerNode('other', 200)]
  const prompt = 'The same beginning, many times over. '.repeat(60)
  const scope = { accountId: batch.id, model: MODEL, chatFormat: 'deepseek_v32' }
  const keys = prefixKeys(env.SPARROW_SECRET, scope, `<｜begin▁of▁sentence｜>${prompt}`)
  const held = keys.length * 64
  const prefix = keys.map((key, i): [string, number] => [key, (i + 1) * 64])
  await env.DB.batch(recording(env.DB, env.SPARROW_SECRET, [receiptOf(other, batch, 'a', { prefix })]))
  const creditOf = async (changes: Partial<Receipt>): Promise<number> => {
    const body = JSON.stringify({ model: MODEL, prompt: [prompt, prompt, 'Another one. '.repeat(200)], max_tokens: 5 })
    const id = idOf(await asCustomer(batch, '/v1/completions', { method: 'POST', body }))
    await send(good, [receiptOf(good, batch, id, changes)])
    const hold = await objectOf(batch).holdOf(id)
    return hold?.credits.reduce((sum, { tokens = 0 }) => sum + tokens, 0) ?? -1
  }
  // The second and third were found cached, the first was not.
  const others = { hitTokens: 2 * held, missTokens: held + 20 }
  expect(await creditOf({ ...others, firstPrompt: { hit: 0, miss: held + 10 } })).toBe(held)
  // What of the first is a real hit, and its last page, which is always computed, are no detour.
  expect(await creditOf({ ...others, firstPrompt: { hit: 128, miss: held - 128 } })).toBe(held - 64 - 128)
})

test('of several prompts, and only then, the node is asked what the first took', async () => {
  await registerNode('mirror')
  const asked = async (prompt: unknown) => {
    const body = JSON.stringify({ model: MODEL, prompt, max_tokens: 5 })
    return (await asCustomer(account, '/v1/completions', { method: 'POST', body })).json()
  }
  expect(await asked(['one', 'two'])).toMatchObject({ countsFirstPrompt: true })
  expect(await asked(['one'])).toMatchObject({ countsFirstPrompt: false })
})

test('the credit never exceeds what was computed in whole pages, nor takes back what a real hit saved', async () => {
  const object = objectOf(account)
  const settle = async (overlap: number, hitTokens: number, missTokens: number): Promise<number> => {
    const node = await registerNode('good')
    const id = idOf(await chat(account.key, { messages }))
    await object.setOverlap(id, overlap)
    await send(node, [receiptOf(node, account, id, { hitTokens, missTokens })])
    const hold = await object.holdOf(id)
    return hitTokens * 28 + missTokens * 280 + 5 * 420 - (hold?.chargedNano ?? 0)
  }
  expect(await settle(100, 0, 500)).toBe(64 * 252)
  expect(await settle(5000, 0, 128)).toBe(64 * 252)
  expect(await settle(128, 128, 100)).toBe(0)
  expect(await settle(64, 128, 100)).toBe(0)
})

test('runs under way end on every path: success, refusal, broken answer, unreachable node', async () => {
  for (const id of ['good', 'other', 'breaks', 'full', 'down', 'draining']) {
    await removeNodes()
    await registerNode(id)
    for (const stream of [true, false]) await (await chat(account.key, { stream })).text()
  }
  for (const id of ['good', 'other', 'breaks', 'full', 'down', 'draining']) await registerNode(id)
  const { data } = await (await admin('GET', '/nodes')).json<{ data: Record<string, unknown>[] }>()
  expect(data.map(({ id, inFlight }) => [id, inFlight])).toEqual(data.map(({ id }) => [id, 0]))
  const states = Object.fromEntries(data.map(({ id, breaker }) => [id, breaker]))
  // Open, or half-open already where the machine stood still for a while.
  expect(states).toMatchObject({ good: 'closed', other: 'closed' })
  expect([states.down, states.breaks]).not.toContain('closed')
  expect(data[0]).toMatchObject({ state: 'live', cachedShare: null })
})

test('the look-up uses the primary key, the sweep the index by account', async () => {
  const plan = async (sql: string, ...values: unknown[]) =>
    (
      await env.DB.prepare(`EXPLAIN QUERY PLAN ${sql}`)
        .bind(...values)
        .all<{ detail: string }>()
    ).results.map(({ detail }) => detail)
  const look = await plan(LOOKUP, '[]', MODEL, 0, 'deepseek_v32')
  expect(look).toContain('SEARCH p USING INDEX sqlite_autoindex_prefix_blocks_1 (key=?)')
  expect(look.filter((line) => /SCAN (?:p|prefix_blocks)\b/.test(line))).toEqual([])
  const swept = await plan(SWEEP, 0, 10, 10, '')
  expect(
    swept.some((line) => line.includes('SEARCH p USING COVERING INDEX prefix_blocks_scope (scope=? AND seen_at<?)')),
  ).toBe(true)
  expect(swept.filter((line) => /^SCAN (?:p|q|prefix_blocks)\b/.test(line))).toEqual([])
})

/** Rows that the receipt wrote. */
const record = async (receipt: Receipt, at: number): Promise<number> => {
  const [done] = await env.DB.batch(recording(env.DB, env.SPARROW_SECRET, [receipt], at))
  return done?.meta.rows_written ?? 0
}

const rows = async (): Promise<number> =>
  (await env.DB.prepare('SELECT count(*) AS n FROM prefix_blocks').first<{ n: number }>())?.n ?? 0

test('rows are written once an hour, expire after a day, and are bounded for each account', async () => {
  await env.DB.prepare('DELETE FROM prefix_blocks').run()
  const node = await registerNode('good')
  const receipt = (who: string, from: number, count: number) =>
    receiptOf(node, { ...account, id: who }, crypto.randomUUID(), {
      prefix: Array.from({ length: count }, (_, i): [string, number] => [`${who}-${from + i}`.padEnd(24, '.'), i]),
    })
  const now = Date.now()
  const one = receipt('one', 0, 10)
  expect(await record(one, now - 2 * DAY_MS)).toBeGreaterThan(0)
  expect(await record(one, now - 2 * DAY_MS + 1000)).toBe(0)
  expect(await record(one, now - 2 * DAY_MS + 3_700_000)).toBeGreaterThan(0)
  await record(receipt('one', 100, 10), now - 500)
  await record(receipt('one', 200, 10), now - 400)
  await record(receipt('two', 0, 10), now)
  await record(receipt('one', 300, 10), now - 300)
  expect(await rows()).toBe(50)
  expect(await sweepPrefixes(env.DB, now)).toBe(10)
  expect(await sweepPrefixes(env.DB, now, 10)).toBe(10)
  const left = await lookup(
    env.DB,
    { model: MODEL, chatFormat: 'deepseek_v32' },
    ['one-209', 'two-9'].map((k) => k.padEnd(24, '.')),
  )
  expect([await rows(), left[0]?.hitTokens]).toEqual([30, 9])
})

test('the scheduled handler sweeps', async () => {
  const old = receiptOf(await registerNode('good'), account, crypto.randomUUID(), {
    prefix: [['old'.padEnd(24, '.'), 64]],
  })
  await record(old, Date.now() - 40 * DAY_MS)
  const rows = async () =>
    (await env.DB.prepare("SELECT key FROM prefix_blocks WHERE key LIKE 'old%'").all()).results.length
  expect(await rows()).toBe(1)
  const context = createExecutionContext()
  worker.scheduled(createScheduledController(), env as unknown as Env, context)
  await waitOnExecutionContext(context)
  expect(await rows()).toBe(0)
})

test('a miss is explained: where the prompt left the path of the most similar one before it, without its text', async () => {
  const asker = await openAccount(1e10)
  const node = await registerNode('good')
  const talk = async (question: string, system = 'You are a patient teacher of history. '.repeat(8)) => {
    const messages = [
      { role: 'system', content: system },
      { role: 'user', content: 'Tell me about Rome.' },
      { role: 'assistant', content: 'Rome was a city.' },
      { role: 'user', content: question },
    ]
    return idOf(await chat(asker.key, { messages }))
  }
  const explain = async (id: string, by = asker): Promise<Record<string, unknown>> => {
    const response = await asCustomer(by, `/v1/usage/${id}/prefix`)
    return { status: response.status, ...(await response.json<Record<string, unknown>>()) }
  }
  const first = await talk('And what about the wars with the city of Carthage?')
  await talk('Something else', 'Another system prompt, with nothing in common. ')
  const second = await talk('And what about the wars with Gaul, and who fought them?')
  expect(await explain(first)).toMatchObject({ compared_with: null, shared_characters: 0 })
  const said = await explain(second)
  const { left_at, resolution_characters: step } = said as unknown as {
    left_at: { message: number; role: string; character: number }
    resolution_characters: number
  }
  expect(said.compared_with).toMatchObject({ request_id: first })
  expect(left_at).toMatchObject({ message: 3, role: 'user' })
  const real = 'And what about the wars with '.length
  expect(left_at.character).toBeLessThanOrEqual(real)
  expect(left_at.character).toBeGreaterThan(real - step)
  // Once both are booked, tokens and nodes tell the rest.
  const receipts = [first, second].map((id, i) => {
    const at = 1000 * (i + 1)
    return receiptOf(node, asker, id, { missTokens: 90, openedAt: at, firstTokenAt: at + 1, closedAt: at + 2 })
  })
  await send(node, receipts)
  await flush(asker)
  const whole = await explain(second)
  expect(whole).toMatchObject({ tokens: { prompt: 90, cached: 0 }, node: 'good' })
  expect(whole.note).toContain('no longer held it')
  expect(await explain(await talk('And what about the wars with Gaul, and who fought them?'))).toMatchObject({
    left_at: null,
  })
  // Neither another account nor another key of the same one may ask; and no text is kept.
  expect((await explain(second, account)).status).toBe(404)
  const made = await admin('POST', '/keys', { account: asker.id, name: 'second' })
  const { key } = await made.json<{ key: string }>()
  expect((await explain(second, { ...asker, key })).status).toBe(404)
  const kept = await runInDurableObject(objectOf(asker), (_object, state) =>
    JSON.stringify(
      state.storage.sql
        .exec('SELECT * FROM trails')
        .toArray()
        .map((row) => ({ ...row, tags: [...new Uint8Array(row.tags as ArrayBuffer)] })),
    ),
  )
  expect(kept).not.toMatch(/Rome|Carthage|teacher/)
})
