// From node to node before the first token: how many are asked, what is told first, and what a client that left says of a node.
import { env } from 'cloudflare:workers'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { FailedAttempt } from '../../edge/account/holds.ts'
import { breaker, inFlight } from '../../edge/fleet.ts'
import { type Dispatch, dispatch } from '../../edge/flow/retry.ts'
import { lookup } from '../../edge/prefix.ts'
import type { Candidate } from '../../edge/router.ts'
import { openAiChat } from '../../schema/dialects/openai_chat.ts'
import { MODEL, registerNode, removeNodes } from './world.ts'

beforeEach(removeNodes)
afterEach(removeNodes)

/** Asks the nodes that are registered, those with the least to do first. */
const ask = async (changes: Partial<Dispatch> = {}) => {
  const body = { model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 10 }
  const bodyText = JSON.stringify(body)
  const parsed = openAiChat.parse(body, { requestId: crypto.randomUUID(), created: 0, seed: '0', bodyText })
  if (!parsed.ok) throw new Error(parsed.error.message)
  const found = await lookup(env.DB, { model: MODEL, chatFormat: 'deepseek_v32' }, [])
  return dispatch({
    secrets: [env.SPARROW_SECRET],
    nodes: found.sort((a, b) => a.running - b.running),
    request: { run: parsed.value, accountId: 'a', keyId: 'k', cacheSalt: 's', prefixKeys: [] },
    promptTokens: 10,
    ...{ signal: new AbortController().signal, pulseMs: 5_000 },
    onAttempt: async () => {},
    ...changes,
  })
}
const behaves = (as: string) => ({ address: env.NODE_ADDRESSES[as] ?? '' })

test('three nodes are asked, not a whole fleet that drains', async () => {
  for (let i = 0; i < 3; i++) await registerNode(`draining-${i}`, i, behaves('draining'))
  await registerNode('good', 9)
  const failed: FailedAttempt[] = []
  const answered = await ask({ onAttempt: async (_node, before) => void (before && failed.push(before)) })
  expect(answered).toMatchObject({ ok: false, error: { code: 'node_draining' } })
  expect(failed.map(({ attempt, nodeId }) => [attempt, nodeId])).toEqual([
    [1, 'draining-0'],
    [2, 'draining-1'],
  ])
})

test('the account knows of the next attempt before its node does: a receipt cannot come first', async () => {
  await registerNode('draining')
  await registerNode('good', 9)
  let isTold = false
  const onAttempt = async (_: Candidate, before: FailedAttempt | undefined): Promise<void> => {
    if (!before) return
    await scheduler.wait(100)
    isTold = true
  }
  expect((await ask({ onAttempt })).ok).toBe(true)
  expect(isTold).toBe(true)
})

test('while the node with the longest context is busy the client comes again, whatever shorter ones say', async () => {
  await registerNode('draining')
  await registerNode('full', 1, { contextTokens: 1_024 })
  await registerNode('longer', 2, { ...behaves('full'), contextTokens: 2_048 })
  expect(await ask()).toMatchObject({ ok: false, error: { code: 'node_draining' } })
})

test('a client that leaves frees its place at the node, and says nothing about it', async () => {
  const node = await registerNode('other')
  for (let i = 0; i < 2; i++) {
    const client = new AbortController()
    const answered = await ask({ signal: client.signal })
    if (!answered.ok) throw new Error(answered.error.message)
    expect(inFlight.count(node.id)).toBe(1)
    client.abort()
    expect(inFlight.count(node.id)).toBe(0)
    answered.ended(true)
  }
  expect(breaker.state(node.id, Date.now())).toBe('closed')
})

test('a client that left while another node was asked is not asked for at the next one', async () => {
  const node = await registerNode('other')
  expect(await ask({ signal: AbortSignal.abort() })).toMatchObject({ ok: false, error: { code: 'client_closed' } })
  expect(inFlight.count(node.id)).toBe(0)
})
