// Live nodes kept in the isolate: how stale they can be, and what a client sees of it.
import { env } from 'cloudflare:workers'
import { afterEach, beforeAll, expect, test, vi } from 'vitest'
import { candidatesFor } from '../../edge/live_nodes.ts'
import { type Account, admin, chat, MODEL, objectOf, openAccount, registerNode, removeNodes } from './world.ts'

let account: Account
beforeAll(async () => {
  account = await openAccount(1e9)
})
afterEach(async () => {
  vi.restoreAllMocks()
  await removeNodes()
})

/** Sets the clock, which stands: on a slow machine, too, what was read is as old as a test says. */
const freeze = (at = Date.now()): number => {
  vi.spyOn(Date, 'now').mockReturnValue(at)
  return at
}
const long = { messages: [{ role: 'user', content: 'word '.repeat(100) }] }

/** As another isolate would register it: this one hears nothing. */
const joinUnheard = async (id: string, like: string): Promise<void> => {
  const row = await env.DB.prepare('SELECT * FROM nodes WHERE id = ?').bind(like).first<object>()
  const joined = Object.entries({ ...row, id, address: env.NODE_ADDRESSES[id], running: 0 })
  const [names, places] = [joined.map(([name]) => name), joined.map(() => '?')]
  await env.DB.prepare(`INSERT INTO nodes (${names}) VALUES (${places})`)
    .bind(...joined.map(([, value]) => value))
    .run()
}

test('a node that went is known for a second at most', async () => {
  await registerNode('good')
  const read = freeze()
  expect((await chat(account.key)).status).toBe(200)
  await env.DB.prepare('DELETE FROM nodes').run()
  freeze(read + 499)
  expect((await chat(account.key)).status).toBe(200)
  freeze(read + 1_000)
  expect((await chat(account.key)).status).toBe(503)
})

test('a prompt with prefix blocks looks them up, and its nodes with them', async () => {
  await registerNode('good')
  expect((await chat(account.key)).status).toBe(200)
  await env.DB.prepare('DELETE FROM nodes').run()
  expect((await chat(account.key, long)).status).toBe(503)
})

test('a node that began to drain refuses, the run moves on, and its attempts are on record', async () => {
  await registerNode('good', 50)
  await registerNode('draining')
  freeze()
  expect((await chat(account.key)).status).toBe(200)
  await env.DB.prepare("UPDATE nodes SET draining = 1 WHERE id = 'draining'").run()
  const response = await chat(account.key)
  expect(response.status).toBe(200)
  const hold = await objectOf(account).holdOf(response.headers.get('x-request-id') ?? '')
  expect(hold?.attempts).toEqual([{ attempt: 1, nodeId: 'draining', code: 'node_draining' }])
})

test('a node that joined is asked within a second', async () => {
  await registerNode('other', 50)
  const read = freeze()
  expect(await (await chat(account.key)).json()).toMatchObject({ node: 'other' })
  await joinUnheard('good', 'other')
  freeze(read + 1_000)
  expect(await (await chat(account.key)).json()).toEqual({ whole: 1 })
})

test('where none of the known nodes took a run the next one asks which there are', async () => {
  await registerNode('draining')
  freeze()
  expect((await chat(account.key)).status).toBe(503)
  await joinUnheard('good', 'draining')
  expect((await chat(account.key)).status).toBe(200)
})

test('nodes read half a second ago are read again beside a request, by one of many', async () => {
  await registerNode('good')
  const read = freeze()
  expect((await chat(account.key)).status).toBe(200)
  await env.DB.prepare('DELETE FROM nodes').run()
  freeze(read + 600)
  let reads = 0
  const counting = new Proxy(env.DB, {
    get: (target, name) => {
      if (name === 'withSession') reads++
      return Reflect.get(target, name).bind(target)
    },
  })
  const waiting: Promise<unknown>[] = []
  const context = { waitUntil: (work: Promise<unknown>) => void waiting.push(work) }
  const kind = { model: MODEL, chatFormat: 'deepseek_v32' }
  const found = await Promise.all([1, 2, 3].map(() => candidatesFor(counting, context, kind, [])))
  expect([found.map((nodes) => nodes.length), reads]).toEqual([[1, 1, 1], 1])
  await Promise.all(waiting)
  // It found none: what was known before is not believed any longer.
  expect(await candidatesFor(env.DB, context, kind, [])).toEqual([])
})

test('nodes are kept by model', async () => {
  const model = `${MODEL}-two`
  await admin('PUT', '/prices', { model, hitNano: 28, missNano: 280, outputNano: 420 })
  await registerNode('other', 0, { model })
  await registerNode('good', 50)
  // The account may have read its prices a moment ago, and asks for others a second later.
  freeze(Date.now() + 1_000)
  for (let i = 0; i < 2; i++) {
    expect(await (await chat(account.key, { model })).json()).toMatchObject({ node: 'other' })
    expect(await (await chat(account.key)).json()).toEqual({ whole: 1 })
  }
})
