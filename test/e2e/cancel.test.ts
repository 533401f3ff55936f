// The cancel policy, by clients that leave: what was prefilled and sampled until then is charged, and nothing else. The node is
// made slow, and small enough that a second run has to wait.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { explain, post, postAndLeave, priceOf, readUntil, settled, talkative } from './customer.ts'
import { eventually } from './stack.ts'
import { type BareStack, bootBareStack } from './workerd.ts'

let stack: BareStack

beforeAll(async () => {
  stack = await bootBareStack({ SPARROW_ISA: 'reference', SPARROW_STEP_TOKENS: '32', SPARROW_RUNNING_MAX: '1' })
})
afterAll(() => stack?.remove())

const LONG = Array.from({ length: 90 }, (_, i) => `Fact ${i}: the house number ${i * 7} stands by the river.`).join(' ')

/** The id of the newest request: a client that left before the head never saw it. */
const lastRequest = async (after: string): Promise<string> =>
  eventually(async () => {
    const response = await fetch(`${stack.baseUrl}/v1/usage?limit=1`, {
      headers: { authorization: `Bearer ${stack.key}` },
    })
    const { data } = (await response.json()) as { data: { request_id: string }[] }
    return data[0] && data[0].request_id > after ? data[0].request_id : undefined
  }, 30_000)

/** Runs that the node has taken on and not ended. */
const openRuns = (): Promise<number> => gauge('sparrow_journal_open')
const steps = (): Promise<number> => gauge('sparrow_engine_steps')

const gauge = async (name: string): Promise<number> => {
  const text = await (await fetch(`${stack.nodeUrl}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1] ?? 0)
}

test('in prefill: the part of the prompt that was computed, no output', async () => {
  const before = await steps()
  const client = postAndLeave(stack, { messages: [{ role: 'user', content: LONG }], max_tokens: 5 })
  await eventually(async () => ((await steps()) > before ? true : undefined))
  client.leave()
  const charge = await settled(stack, await lastRequest(''))
  expect(charge.finish).toBe('cancelled')
  expect(charge.tokens?.output).toBe(0)
  expect(charge.tokens?.uncached).toBeGreaterThan(0)
  expect(charge.tokens?.uncached).toBeLessThan(700)
  expect(charge.charge_nano).toBe(priceOf(charge))
})

test('at the first token, in mid-stream: what was sampled until then', async () => {
  const outputs: number[] = []
  for (const events of [1, 40]) {
    const leave = new AbortController()
    const response = await post(stack, talkative(events, { ignore_eos: true }), { signal: leave.signal })
    await readUntil(response, (text) => text.split('"content":"').length > events + 1)
    leave.abort()
    const charge = await settled(stack, response.headers.get('x-request-id') ?? '')
    expect(charge.finish).toBe('cancelled')
    expect(charge.charge_nano).toBe(priceOf(charge))
    outputs.push(charge.tokens?.output ?? 0)
  }
  const [first = 0, later = 0] = outputs
  expect(first).toBeGreaterThan(0)
  expect(later).toBeGreaterThan(30)
  expect(first).toBeLessThan(later)
})

test('in the queue: nothing', async () => {
  const leave = new AbortController()
  const first = await post(stack, talkative(5, { ignore_eos: true }), { signal: leave.signal })
  await readUntil(first, (text) => text.includes('"content":"'))
  const client = postAndLeave(stack, { messages: [{ role: 'user', content: LONG }], max_tokens: 1500 })
  await eventually(async () => ((await openRuns()) > 1 ? true : undefined))
  client.leave()
  const charge = await settled(stack, await lastRequest(first.headers.get('x-request-id') ?? ''))
  leave.abort()
  expect(charge).toMatchObject({ finish: 'cancelled', charge_nano: 0 })
  await settled(stack, first.headers.get('x-request-id') ?? '')
})

test('a client that leaves at any moment leaves no hold behind', async () => {
  // One run at a time: a hold that stays open keeps everybody else out.
  const made = await stack.admin<{ id: string; key: string }>('POST', '/keys', {
    account: 'demo',
    name: 'one at a time',
  })
  await stack.admin('PUT', `/keys/${made.id}/limits`, { concurrency: 1 })
  const shop = { ...stack, key: made.key }
  const short = { messages: [{ role: 'user', content: 'Hello' }], max_tokens: 1 }
  const isFree = () =>
    eventually(async () => {
      const response = await post(shop, short)
      await response.text()
      return response.ok ? true : undefined
    }, 15_000)
  for (const ms of [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22]) {
    await isFree()
    const client = postAndLeave(shop, { messages: [{ role: 'user', content: LONG }], max_tokens: 5 })
    await new Promise((done) => setTimeout(done, ms))
    client.leave()
  }
  await isFree()
})

test('a slow reader that stays gets, and pays for, the whole; one that leaves pays for what was sampled', async () => {
  const slow = async (response: Response, reads: number): Promise<string> => {
    let left = reads
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
    let text = ''
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
      text += part.value
      if (--left === 0) break
      await new Promise((done) => setTimeout(done, 40))
    }
    return text
  }
  const stays = await post(stack, talkative(7, { max_tokens: 60, stream_options: { include_usage: true } }))
  const text = await slow(stays, Infinity)
  expect(text).toContain('[DONE]')
  const whole = await settled(stack, stays.headers.get('x-request-id') ?? '')
  expect(text).toContain(`"completion_tokens":${whole.tokens?.output}`)
  const leave = new AbortController()
  const leaves = await post(stack, talkative(8), { signal: leave.signal })
  await slow(leaves, 5)
  leave.abort()
  const part = await settled(stack, leaves.headers.get('x-request-id') ?? '')
  expect(part.charge_nano).toBe(priceOf(part))
  expect(await stack.admin('GET', '/audit')).toMatchObject({ ok: true })
})

test('with an idempotency key a whole answer is made though its client left while it was', async () => {
  const headers = { 'idempotency-key': 'leaves before the head' }
  const leave = new AbortController()
  const body = talkative(10, { max_tokens: 60, stream: false })
  const asked = post(stack, body, { headers, signal: leave.signal })
  await eventually(async () => ((await openRuns()) > 0 ? true : undefined))
  leave.abort()
  await expect(asked).rejects.toThrow()
  const again = await eventually(async () => {
    const response = await post(stack, body, { headers })
    return response.status === 409 ? undefined : response
  }, 30_000)
  expect(again.headers.get('idempotent-replayed')).toBe('true')
  const { usage } = (await again.json()) as { usage: { completion_tokens: number } }
  const charge = await settled(stack, again.headers.get('x-request-id') ?? '')
  expect(charge.tokens?.output).toBe(usage.completion_tokens)
})

test('with an idempotency key the run goes on, and its answer is found by the next try', async () => {
  const headers = { 'idempotency-key': 'leaves and comes back' }
  const leave = new AbortController()
  const body = talkative(9, { max_tokens: 80 })
  const first = await post(stack, body, { headers, signal: leave.signal })
  await readUntil(first, (text) => text.includes('"content":"'))
  leave.abort()
  const id = first.headers.get('x-request-id') ?? ''
  const again = await eventually(async () => {
    const response = await post(stack, body, { headers })
    return response.status === 409 ? undefined : response
  }, 30_000)
  expect(again.headers.get('idempotent-replayed')).toBe('true')
  expect(again.headers.get('x-request-id')).toBe(id)
  expect(await again.text()).toContain('[DONE]')
  const charge = await settled(stack, id)
  expect(charge.finish).not.toBe('cancelled')
  expect((await explain(stack, id)).charge_nano).toBe(priceOf(charge))
})
