// Statements that D1 gets for each thousand requests: figures that ARCHITECTURE.md reckons with. One look-up a request; everything
// else is batched.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { expect, test } from 'vitest'
import { accountStore } from '../../edge/account/store.ts'
import type { AccountObject } from '../../edge/account.ts'
import type { Env } from '../../edge/env.ts'
import { nodeCall } from '../../edge/node_calls.ts'
import { flushOutbox } from '../../edge/outbox.ts'
import { takeReceipts } from '../../edge/receipts.ts'
import { signReceipt } from '../../schema/receipt.ts'
import { signCall } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import {
  ALARM_LATE_MS,
  admissionOf,
  flush,
  newLink,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  send,
} from './world.ts'

/** Reads of the node's key, which an isolate repeats after ten seconds: apart, so that the machine's pace changes no count. */
const KEY = /^select "public_key"/

interface Counts {
  statements: number
  /** To D1: the statements of a batch go together. */
  calls: number
}

/** A database that counts what it is asked. */
const counting = (database: D1Database, counts: Counts): D1Database =>
  new Proxy(database, {
    get: (target, name) => {
      if (name === 'prepare')
        return (sql: string) => (KEY.test(sql) ? target.prepare(sql) : count(target.prepare(sql), counts))
      if (name === 'batch')
        return (statements: D1PreparedStatement[]) => {
          counts.statements += statements.length
          counts.calls++
          return target.batch(statements)
        }
      return Reflect.get(target, name).bind(target)
    },
  })
const count = (statement: D1PreparedStatement, counts: Counts): D1PreparedStatement =>
  new Proxy(statement, {
    get: (target, name) => {
      if (name === 'bind') return (...values: unknown[]) => count(target.bind(...values), counts)
      if (['run', 'all', 'first', 'raw'].includes(String(name))) {
        counts.statements++
        counts.calls++
      }
      const value = Reflect.get(target, name)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })

test('a thousand requests of one account: 21 statements in 11 calls for ten segments, 18 for the outbox', async () => {
  const account = await openAccount(1e10)
  const node = await registerNode('good')
  const object = objectOf(account)
  const link = newLink()
  const segments = { statements: 0, calls: 0 }
  let previous = link.previous
  for (let index = 0; index < 10; index++) {
    const ids = await Promise.all(
      Array.from({ length: 100 }, async () => {
        const admission = admissionOf(account)
        expect((await object.admit(admission)).kind).toBe('admitted')
        return admission.requestId
      }),
    )
    const prefix: [string, number][] = [[crypto.randomUUID().slice(0, 24), 64]]
    const receipts = await Promise.all(
      ids.map((id) => signReceipt(node.privateKey, receiptOf(node, account, id, { prefix }))),
    )
    const body = utf8(JSON.stringify({ nodeId: node.id, link: { ...link, index, previous }, receipts }))
    previous = [...new Uint8Array(await crypto.subtle.digest('SHA-256', body))]
      .map((byte) => byte.toString(16).padStart(2, '0'))
      .join('')
    const authorization = await signCall(node.privateKey, 'EdDSA', node.id, 'edge', body)
    const counted = { ...(env as unknown as Env), DB: counting(env.DB, segments) }
    const request = new Request('http://edge.test', { method: 'POST', headers: { authorization }, body })
    const signed = await nodeCall(counted, request)
    const taken = signed.ok ? await takeReceipts(counted, signed.value) : signed
    expect(taken.ok && taken.value.acknowledged.length).toBe(100)
  }
  // Prefix rows and head of each, the chain once.
  expect(segments).toEqual({ statements: 21, calls: 11 })
  const outbox = { statements: 0, calls: 0 }
  await runInDurableObject(object, async (_object, state) => {
    const store = accountStore(state.storage)
    await flushOutbox(counting(env.DB, outbox), store)
  })
  // A thousand charges and the credit before them.
  expect(outbox).toEqual({ statements: 18, calls: 6 })
})

test('while a hundred receipts settle, others have their turns', async () => {
  const account = await openAccount(1e10)
  const node = await registerNode('good')
  const object = objectOf(account)
  const admissions = Array.from({ length: 100 }, () => admissionOf(account))
  for (const admission of admissions) await object.admit(admission)
  const receipts = await Promise.all(
    admissions.map(({ requestId }) => signReceipt(node.privateKey, receiptOf(node, account, requestId))),
  )
  const seen = new Set<number>()
  await runInDurableObject(object, async (instance, { storage }) => {
    let [turns, done] = [0, false]
    const plain = storage.transactionSync.bind(storage)
    storage.transactionSync = <T>(work: () => T): T => {
      seen.add(turns)
      return plain(work)
    }
    const settled = (instance as unknown as AccountObject).settle(receipts).finally(() => {
      done = true
    })
    for (; !done; turns++) await scheduler.wait(0)
    expect(new Set((await settled).map(({ state }) => state))).toEqual(new Set(['settled']))
  })
  expect(seen.size).toBeGreaterThanOrEqual(10)
})

test('under load an object hands its rows over once a second', async () => {
  const account = await openAccount(1e10)
  const node = await registerNode('good')
  const object = objectOf(account)
  const settled = async (): Promise<void> => {
    const admission = admissionOf(account)
    await object.admit(admission)
    await send(node, [receiptOf(node, account, admission.requestId)])
  }
  await settled()
  const before = Date.now()
  await flush(account)
  await settled()
  const due = await runInDurableObject(object, (_, state) => state.storage.getAlarm())
  expect((due ?? 0) - ALARM_LATE_MS).toBeGreaterThanOrEqual(before + 1_000)
})
