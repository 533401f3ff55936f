// Bills derived again from sealed segments, byte for byte; a segment that is missing or altered is seen; usage rows go after their
// time, roll-ups, ledger and evidence stay.

import { env } from 'cloudflare:workers'
import { createHash } from 'node:crypto'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { bookedLines } from '../../edge/admin/evidence.ts'
import type { Env } from '../../edge/env.ts'
import { evidenceKey, type KeptSegment, keepSegment, sealOf } from '../../edge/evidence.ts'
import { nodeCall } from '../../edge/node_calls.ts'
import { takeReceipts } from '../../edge/receipts.ts'
import { sweepUsage } from '../../edge/retention.ts'
import { sweep } from '../../edge/sweep.ts'
import type { Terms } from '../../schema/bill.ts'
import { signReceipt } from '../../schema/receipt.ts'
import { signCall } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import type { Receipt, Segment } from '../../schema/wire.ts'
import { deriveBills, resealAll } from '../../scripts/admin_evidence.ts'
import {
  type Account,
  admin,
  COST,
  call,
  chat,
  flush,
  idOf,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  type TestNode,
} from './world.ts'

const worker = env as unknown as Env
const DAY_MS = 24 * 3_600_000
let node: TestNode
let account: Account
let chain: string
let index: number
let previous: string
let ids: string[]

const sealed = async (receipts: readonly Receipt[], link = { chain, index, previous }): Promise<string> => {
  const signed = await Promise.all(receipts.map((receipt) => signReceipt(node.privateKey, receipt)))
  return JSON.stringify({ nodeId: node.id, link, receipts: signed })
}
const RECEIPTS = '/internal/receipts'
const signed = async (text: string) => {
  const body = utf8(text)
  const authorization = await signCall(node.privateKey, 'EdDSA', node.id, 'edge', body)
  return { method: 'POST', headers: { authorization }, body }
}
const deliver = async (text: string): Promise<number> => (await call(RECEIPTS, await signed(text))).status
/** By a Worker with other bindings. */
const taking = async (by: Env, text: string) => {
  const from = await nodeCall(by, new Request(`http://edge.test${RECEIPTS}`, await signed(text)))
  return from.ok ? takeReceipts(by, from.value) : from
}
/** The node's next segment. */
const send = async (receipts: readonly Receipt[]): Promise<string> => {
  const text = await sealed(receipts)
  expect(await deliver(text)).toBe(200)
  index++
  previous = createHash('sha256').update(text).digest('hex')
  return text
}
const run = async (): Promise<string> => {
  const response = await chat(account.key)
  expect(response.status).toBe(200)
  return idOf(response)
}

const ask = async <T>(method: string, path: string, body?: object): Promise<T> =>
  (await admin(method, path, body)).json<T>()
const derive = () => deriveBills(ask, Date.now() + 1000, account.id)
const kinds = async () => [...new Set((await derive()).findings.map(({ kind }) => kind))].sort()

beforeAll(async () => {
  node = await registerNode('good')
})
afterEach(() => {
  vi.restoreAllMocks()
})
beforeEach(async () => {
  for (const table of ['usage', 'usage_hours', 'ledger', 'evidence_chains', 'api_keys', 'accounts', 'sweeps'])
    await env.DB.prepare(`DELETE FROM ${table}`).run()
  account = await openAccount(1e9)
  ;[chain, index, previous] = [crypto.randomUUID(), 0, '']
  ids = [await run(), await run(), await run()]
  for (const id of ids) await send([receiptOf(node, account, id)])
  await flush(account)
})

test('every bill is derived again from the segments, byte for byte', async () => {
  const report = await derive()
  expect(report).toMatchObject({ ok: true, segments: 3, bills: 3, findings: [] })
  const booked = await bookedLines(worker, { requestIds: ids })
  if (!booked.ok) throw new Error('no lines')
  expect(report.lines).toEqual(Object.values(booked.value.lines).sort())
  expect((await derive()).sha256).toBe(report.sha256)
})

test('what was given back has a line of its own, so that a bill adds up to the ledger; a refund of another sum is seen', async () => {
  for (let i = 0; i < 2; i++) await objectOf(account).release(ids[1] ?? '')
  await flush(account)
  const report = await derive()
  expect(report).toMatchObject({ ok: true, bills: 3, findings: [] })
  const sums = report.lines.map((line) => (JSON.parse(line) as unknown[]).at(-1) as number)
  expect(sums).toEqual([COST, COST, COST, -COST])
  expect(JSON.parse(report.lines[3] ?? '[]')).toEqual([expect.any(Number), ids[1], 'refund', account.id, -COST])
  expect(await deriveBills(ask, 1, account.id)).toMatchObject({ ok: true, lines: [] })
  await env.DB.prepare("UPDATE ledger SET amount_nano = 1 WHERE kind = 'refund'").run()
  expect(await kinds()).toEqual(['refund is not its charge'])
})

test('a segment sent again is kept once; one that repeats receipts bills nothing twice', async () => {
  const receipt = receiptOf(node, account, await run())
  const text = await send([receipt])
  expect(await deliver(text)).toBe(200)
  expect((await kept(3))[1].terms).toHaveLength(1)
  await send([receipt])
  await flush(account)
  expect(await derive()).toMatchObject({ ok: true, segments: 5, bills: 4 })
})

test('a receipt that says something else than the one that was settled bills nothing', async () => {
  const receipt = receiptOf(node, account, await run())
  await send([receipt])
  await send([{ ...receipt, outputTokens: receipt.outputTokens - 1 }])
  await flush(account)
  expect(await derive()).toMatchObject({ ok: true, findings: [], segments: 5, bills: 4 })
})

test('what is rightly free is sealed as such, and what was refused with its reason', async () => {
  const failed = await run()
  await objectOf(account).release(failed)
  const never = crypto.randomUUID()
  await send([receiptOf(node, account, failed), receiptOf(node, account, never), receiptOf(node, account, await run())])
  await flush(account)
  expect(await derive()).toMatchObject({ ok: true, findings: [], bills: 4, unbilled: 2 })
  const [key, object] = await kept(index - 1)
  const refused = { requestId: never, attempt: 1, reason: 'no such request was admitted' }
  expect(object.unbilled).toEqual([{ requestId: failed, attempt: 1 }, refused])
  await worker.EVIDENCE.put(key, JSON.stringify({ ...object, unbilled: [refused] }))
  expect(await kinds()).toEqual(['receipt is neither billed nor said to be free', "terms do not bear the edge's seal"])
})

test('a receipt that is lost is found however old it is; until it comes again, and is billed', async () => {
  const receipt = receiptOf(node, account, await run())
  const text = await sealed([receipt])
  const away = { idFromName: () => ({}), get: () => ({ settle: () => Promise.reject(new Error('away')) }) }
  const ACCOUNT = away as unknown as Env['ACCOUNT']
  const taken = await taking({ ...worker, ACCOUNT }, text)
  expect(taken).toEqual({ ok: true, value: { acknowledged: [], refused: [] } })
  index++
  previous = createHash('sha256').update(text).digest('hex')
  const lost = { kind: 'receipt is neither billed nor said to be free', row: `${receipt.requestId}/1` }
  expect((await derive()).findings).toMatchObject([{ ...lost, account: account.id }])
  await send([receipt])
  await flush(account)
  expect(await derive()).toMatchObject({ ok: true, findings: [], bills: 4 })
})

test('a segment that does not continue its chain is refused, and nothing of it is settled', async () => {
  const id = await run()
  const gap = await sealed([receiptOf(node, account, id)], { chain, index: index + 1, previous })
  expect(await deliver(gap)).toBe(409)
  const other = await sealed([receiptOf(node, account, id)], { chain, index: index - 1, previous: '' })
  expect(await deliver(other)).toBe(409)
  const fork = await sealed([receiptOf(node, account, id)], { chain, index, previous: 'f'.repeat(64) })
  expect(await deliver(fork)).toBe(409)
  // A chain that this isolate never saw.
  const unseen = { chain: crypto.randomUUID(), index: 3, previous: 'a'.repeat(64) }
  await env.DB.prepare('INSERT INTO evidence_chains VALUES (?, ?, 3, ?, 0)').bind(node.id, unseen.chain, previous).run()
  for (const link of [unseen, { ...unseen, index: 2 }])
    expect(await deliver(await sealed([receiptOf(node, account, id)], link))).toBe(409)
  expect((await objectOf(account).holdOf(id))?.state).toBe('open')
  await env.DB.prepare('DELETE FROM evidence_chains WHERE chain = ?').bind(unseen.chain).run()
  await flush(account)
  expect((await derive()).bills).toBe(3)
})

test('a segment that comes to an isolate which is behind does not take its chain back', async () => {
  const text = await sealed([receiptOf(node, account, await run())])
  const key = evidenceKey(node.id, chain, index)
  const seal = sealOf(worker.SPARROW_SECRET, key, text, [])
  await worker.EVIDENCE.put(key, JSON.stringify({ segment: text, terms: [], seal }))
  const further = { segments: 5, head: 'of another isolate' }
  await env.DB.prepare('UPDATE evidence_chains SET segments = ?, head = ?').bind(5, further.head).run()
  expect(await deliver(text)).toBe(200)
  expect(await env.DB.prepare('SELECT segments, head FROM evidence_chains').first()).toEqual(further)
})

test('of two calls that add terms to one segment the second does not undo the first', async () => {
  const text = await sealed([receiptOf(node, account, ids[0] ?? '')])
  const segment = JSON.parse(text) as Segment
  const word = (...ids: string[]) => ({ terms: ids.map((requestId) => ({ requestId }) as Terms), unbilled: [] })
  expect(await keepSegment(worker, segment, text, word(), [])).toMatchObject({ ok: true })
  // The other one writes between this one's look and its write.
  const between = new Proxy(worker.EVIDENCE, {
    get: (bucket, name) => {
      if (name !== 'get') return Reflect.get(bucket, name).bind(bucket)
      return async (key: string) => {
        const seen = await bucket.get(key)
        await keepSegment(worker, segment, text, word('first'), [])
        return seen
      }
    },
  })
  const second = await keepSegment({ ...worker, EVIDENCE: between }, segment, text, word('second'), [])
  expect(second).toMatchObject({ ok: false, error: { code: 'conflict' } })
  expect((await kept(index))[1].terms).toEqual(word('first').terms)
})

test('an account that fails leaves its own receipts to be sent again, and its terms are added then', async () => {
  const stranger = await openAccount(1e9)
  const theirs = idOf(await chat(stranger.key))
  const mine = await run()
  const text = await sealed([receiptOf(node, stranger, theirs), receiptOf(node, account, mine)])
  const { ACCOUNT: real } = worker
  const failing = {
    idFromName: (name: string) => real.idFromName(name),
    get: (id: DurableObjectId) => {
      if (id.equals(real.idFromName(account.id))) throw new Error('the object cannot be reached')
      return real.get(id)
    },
  } as unknown as typeof real
  const taken = await taking({ ...worker, ACCOUNT: failing }, text)
  expect(taken).toEqual({ ok: true, value: { acknowledged: [{ requestId: theirs, attempt: 1 }], refused: [] } })
  const termsOf = async () => (await kept(index))[1].terms.map(({ requestId }) => requestId)
  expect(await termsOf()).toEqual([theirs])
  expect(await deliver(text)).toBe(200)
  expect(await termsOf()).toEqual([theirs, mine])
  await flush(account)
  await flush(stranger)
  expect(await derive()).toMatchObject({ ok: true, bills: 5 })
})

test('what another isolate kept meanwhile is taken again as it stands; another segment in its place is not', async () => {
  const key = evidenceKey(node.id, chain, index)
  const text = await sealed([receiptOf(node, account, await run())])
  const other = await sealed([receiptOf(node, account, await run())])
  const keep = (segment: string) =>
    worker.EVIDENCE.put(
      key,
      JSON.stringify({ segment, terms: [], seal: sealOf(worker.SPARROW_SECRET, key, segment, []) }),
    )
  await keep(other)
  expect(await deliver(text)).toBe(409)
  await keep(text)
  expect(await deliver(text)).toBe(200)
  await flush(account)
  expect(await derive()).toMatchObject({ ok: true, segments: 4 })
})

const kept = async (at: number): Promise<[string, KeptSegment]> => {
  const key = evidenceKey(node.id, chain, at)
  const object = await (await worker.EVIDENCE.get(key))?.json<KeptSegment>()
  if (!object) throw new Error('no segment')
  return [key, object]
}

test.each([
  ['segment is missing', 'in the middle', 1, () => undefined],
  ["last segment is not the chain's head", 'at the end', 2, () => undefined],
  [
    'receipt is not signed by its node',
    'a count altered',
    1,
    (k: KeptSegment) => ({ ...k, segment: k.segment.replace('"outputTokens":5', '"outputTokens":4') }),
  ],
  [
    'segment does not continue its chain',
    'rewritten whole',
    0,
    (k: KeptSegment) => ({ ...k, segment: k.segment.replace('"finish":"stop"', '"finish":"length"') }),
  ],
  [
    "terms do not bear the edge's seal",
    'a cheaper price',
    1,
    (k: KeptSegment) => ({ ...k, terms: k.terms.map((t) => ({ ...t, price: { ...t.price, output: 1 } })) }),
  ],
])('%s: %s', async (kind, _how, at, alter) => {
  const [key, object] = await kept(at)
  const altered = alter(object)
  if (altered) await worker.EVIDENCE.put(key, JSON.stringify(altered))
  else await worker.EVIDENCE.delete(key)
  expect(await kinds()).toContain(kind)
})

test.each<[string, (k: KeptSegment) => unknown]>([
  ['an empty object', () => ({})],
  ['no terms', (k) => ({ ...k, terms: null })],
  ['terms without a price', (k) => ({ ...k, terms: k.terms.map(({ price: _, ...rest }) => rest) })],
  ['unbilled without a name', (k) => ({ ...k, unbilled: [null] })],
])(
  'what stands in a place and is no segment is a finding, and holds up nothing behind it: %s',
  async (_what, alter) => {
    const [place, object] = await kept(1)
    await worker.EVIDENCE.put(place, JSON.stringify(alter(object)))
    const report = await derive()
    expect(report.findings[0]).toMatchObject({ kind: 'segment is missing', row: `${node.id} ${chain} 1` })
    expect(report.bills).toBe(2)
    expect(await resealAll(ask)).toEqual({ ok: false, segments: 3, resealed: 0, refused: 1 })
  },
)

test('a seal is of one place: what was moved does not bear it', async () => {
  const [[first], [, second]] = [await kept(0), await kept(1)]
  await worker.EVIDENCE.put(first, JSON.stringify(second))
  expect(await kinds()).toContain("terms do not bear the edge's seal")
})

test('books that were altered differ from the evidence', async () => {
  await env.DB.prepare('UPDATE usage SET output_tokens = 4, charged_nano = charged_nano - 420 WHERE request_id = ?')
    .bind(ids[0])
    .run()
  expect(await kinds()).toEqual(['bill differs from the books'])
  await env.DB.prepare('UPDATE ledger SET amount_nano = amount_nano + 420 WHERE id = ?').bind(ids[0]).run()
  expect(await kinds()).toEqual(['bill differs from the books', 'evidence and ledger differ'])
})

test('without its bucket the edge acknowledges nothing, and nothing is lost', async () => {
  await env.DB.prepare('ALTER TABLE evidence_chains RENAME TO away').run()
  const text = await sealed([receiptOf(node, account, await run())])
  expect(await deliver(text)).toBe(500)
  await env.DB.prepare('ALTER TABLE away RENAME TO evidence_chains').run()
  expect(await deliver(text)).toBe(200)
  await flush(account)
  expect(await derive()).toMatchObject({ ok: true, bills: 4 })
})

test('receipts do not wait for prefix rows that cannot be written', async () => {
  const prefix: [string, number][] = [['k'.padEnd(24, '.'), 64]]
  // Before the table goes: a look-up needs it, where the nodes were read more than a second ago.
  const text = await sealed([receiptOf(node, account, await run(), { prefix })])
  await env.DB.prepare('ALTER TABLE prefix_blocks RENAME TO away').run()
  const status = await deliver(text)
  await env.DB.prepare('ALTER TABLE away RENAME TO prefix_blocks').run()
  expect(status).toBe(200)
  await flush(account)
  expect(await derive()).toMatchObject({ ok: true, bills: 4 })
})

test.each(['0', '', '-30', 'abc'])('the cron deletes nothing by a time that means nothing: %j', async (days) => {
  await env.DB.prepare('UPDATE usage SET settled_at = 1').run()
  await sweep({ ...worker, USAGE_DAYS: days })
  expect(await env.DB.prepare('SELECT count(*) AS n FROM usage').first()).toEqual({ n: 3 })
  expect(
    await env.DB.prepare("SELECT before FROM sweeps WHERE name = 'usage' AND before > ?").bind(Date.now()).first(),
  ).toBeNull()
})

test('usage rows are swept after their time; sums, ledger, evidence and a clean audit stay', async () => {
  const sums = () => env.DB.prepare('SELECT sum(requests) AS n, sum(charged_nano) AS nano FROM usage_hours').first()
  const before = await sums()
  expect(before).toMatchObject({ n: 3 })
  expect(await sweepUsage(worker, Date.now() + 89 * DAY_MS)).toBe(0)
  expect(await sweepUsage(worker, Date.now() + 91 * DAY_MS)).toBe(3)
  expect(await sums()).toEqual(before)
  expect(await (await admin('GET', '/audit')).json()).toMatchObject({ ok: true, findings: [] })
  expect(await derive()).toMatchObject({ ok: true, bills: 3 })
})

test('a sweep takes what is old by id and by settlement, all of it; what it marked as gone stays so', async () => {
  const late = Date.now() + 5 * DAY_MS
  await env.DB.prepare('UPDATE usage SET settled_at = ? WHERE request_id = ?').bind(late, ids[0]).run()
  const columns = (
    await env.DB.prepare('SELECT name FROM pragma_table_info(?)').bind('usage').all<{ name: string }>()
  ).results
    .map(({ name }) => name)
    .filter((name) => name !== 'request_id')
  await env.DB.prepare(
    `WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2500)
    INSERT INTO usage (request_id, ${columns}) SELECT '00' || i, ${columns} FROM c, usage WHERE request_id = ?`,
  )
    .bind(ids[1])
    .run()
  expect(await sweepUsage(worker, Date.now() + 91 * DAY_MS)).toBe(2_502)
  const mark = () => env.DB.prepare("SELECT before FROM sweeps WHERE name = 'usage'").first('before')
  const before = await mark()
  expect(await sweepUsage({ ...worker, USAGE_DAYS: '365' }, Date.now() + 91 * DAY_MS)).toBe(0)
  expect(await mark()).toBe(before)
})

test('a sweep that fails leaves the others to do theirs', async () => {
  vi.spyOn(Date, 'now').mockReturnValue(Date.now() + 91 * DAY_MS)
  await env.DB.prepare('ALTER TABLE prefix_blocks RENAME TO away').run()
  await sweep(worker)
  await env.DB.prepare('ALTER TABLE away RENAME TO prefix_blocks').run()
  expect(await env.DB.prepare('SELECT count(*) AS n FROM usage').first()).toEqual({ n: 0 })
})

test('roll-ups count a usage row once, however often its batch comes', async () => {
  const copy = 'INSERT INTO usage SELECT * FROM usage WHERE true ON CONFLICT DO NOTHING'
  await env.DB.prepare(copy).run()
  expect(await env.DB.prepare('SELECT sum(requests) AS n FROM usage_hours').first()).toEqual({ n: 3 })
})
