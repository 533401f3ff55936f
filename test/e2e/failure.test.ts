// What can go wrong: a node killed in mid-stream, no node at all, a restart of everything.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { post, talkative } from './customer.ts'
import { bootTestStack, eventually, type LedgerRow, type TestStack } from './stack.ts'

let stack: TestStack

beforeAll(async () => {
  // Slow enough to be killed in mid-stream.
  stack = await bootTestStack({ SPARROW_ISA: 'reference' })
})
afterAll(() => stack?.remove())

const ledger = async (): Promise<LedgerRow[]> =>
  (await stack.admin<{ data: LedgerRow[] }>('GET', '/ledger?account=demo')).data

test('a node killed in mid-stream: error frame, no charge without a receipt, the restart closes the orphan', async () => {
  const response = await post(stack, talkative(11, { ignore_eos: true }))
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = (await reader?.read())?.value ?? ''
  const pid = stack.nodePid()
  if (pid) process.kill(pid, 'SIGKILL')
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) text += part.value
  const last = text.trim().split('\n\n').at(-1) ?? ''
  expect(JSON.parse(last.replace('data: ', ''))).toMatchObject({ error: { code: 'stream_interrupted' } })
  expect(text).not.toContain('[DONE]')
  const requestId = response.headers.get('x-request-id')
  expect((await ledger()).find((row) => row.id === requestId)).toBeUndefined()

  const none = await post(stack, { messages: [{ role: 'user', content: 'Hello!' }] })
  expect(none.status).toBe(503)
  expect(none.headers.get('retry-after')).toBeTruthy()

  const listeners = process.listenerCount('exit')
  await stack.restartNode()
  // Node warns of a leak at the eleventh.
  expect(process.listenerCount('exit')).toBe(listeners)
  const charge = await eventually(async () => (await ledger()).find((row) => row.id === requestId))
  expect(charge.amountNano).toBeLessThanOrEqual(0)
  expect(await stack.admin('GET', '/audit')).toMatchObject({ ok: true })
})

/** Prompt tokens and those of them that were cached, once the receipt has arrived. */
const countOf = async (content: string): Promise<{ prompt: number; cached: number }> => {
  const response = await post(stack, { messages: [{ role: 'user', content }], max_tokens: 1 })
  const { usage } = (await response.json()) as {
    usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } }
  }
  const requestId = response.headers.get('x-request-id')
  await eventually(async () => (await ledger()).find((row) => row.id === requestId))
  return { prompt: usage.prompt_tokens, cached: usage.prompt_tokens_details.cached_tokens }
}

test('a second start keeps key, balance, ledger and cached pages', async () => {
  const long = `Repeat: ${'Dora Emil Frida '.repeat(60)}`
  expect((await countOf(long)).cached).toBe(0)
  const before = { key: stack.key, rows: await ledger() }
  stack = await stack.reboot()
  expect(stack.key).toBe(before.key)
  expect(await ledger()).toEqual(before.rows)
  expect((await post(stack, { messages: [{ role: 'user', content: 'Hello!' }] })).status).toBe(200)
  const { prompt, cached } = await countOf(long)
  expect(cached).toBe(Math.floor((prompt - 1) / 64) * 64)
  expect(cached).toBeGreaterThan(64)
})
