// A node whose process stands still (SIGSTOP) and goes on later, beside one that runs: its connections stay open all the time. What the
// client sees, what is charged in the end, and that the books agree with both journals.
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { auditBooks } from '../../scripts/admin_audit.ts'
import { explain, post, priceOf, readUntil, settled, talkative } from './customer.ts'
import { eventually, type LedgerRow } from './stack.ts'
import { addNode, type BareStack, bootBareStack, type MoreNode } from './workerd.ts'

const SLOW = { SPARROW_ISA: 'reference', SPARROW_STEP_TOKENS: '32' }
/** The edge asks five times as often as it does elsewhere: what is waited for here is its patience. */
const QUICK = { PULSE_SECONDS: '1' }
let stack: BareStack
let more: MoreNode

interface Place {
  readonly url: string
  readonly pid: number
}

beforeAll(async () => {
  stack = await bootBareStack(SLOW, QUICK)
  more = await addNode(stack, SLOW)
})
afterAll(async () => {
  await more?.remove()
  await stack?.remove()
})

/** What has thawed tells of its runs, and the books agree with them. */
afterEach(async () => {
  const journals = [stack.stateDir, more.stateDir].map((dir) => join(dir, 'node', 'journal'))
  const report = await eventually(async () => {
    for (const { url } of places()) if (!/^sparrow_journal_pending 0/m.test(await metricsOf(url))) return undefined
    const found = await auditBooks((method, path, body) => stack.admin(method, path, body as object), journals)
    return found.ok ? found : undefined
  }, 60_000)
  expect(report.findings).toEqual([])
})

const places = (): Place[] => [
  { url: stack.nodeUrl, pid: stack.nodePid() ?? 0 },
  { url: more.url, pid: more.pid ?? 0 },
]

const metricsOf = async (url: string): Promise<string> => (await fetch(`${url}/metrics`)).text()

/** The node that has a run open. */
const busy = (): Promise<Place> =>
  eventually(async () => {
    for (const place of places()) if (/^sparrow_journal_open 1/m.test(await metricsOf(place.url))) return place
    return undefined
  })

const charges = async (requestId: string): Promise<number> =>
  (await stack.admin<{ data: LedgerRow[] }>('GET', '/ledger?account=demo')).data.filter(({ id }) => id === requestId)
    .length

/** Seconds of prefill for the reference kernels. */
const LONG = Array.from({ length: 25 }, (_, i) => `Fact ${i}: the house number ${i * 7} stands by the river.`).join(' ')

test('frozen before its head: the other node answers within seconds, and is paid, once, whatever the first says when it thaws', async () => {
  const asked = post(stack, { messages: [{ role: 'user', content: LONG }], max_tokens: 5 })
  const { pid } = await busy()
  process.kill(pid, 'SIGSTOP')
  const response = await asked.finally(() => process.kill(pid, 'SIGCONT'))
  expect(response.status).toBe(200)
  const { usage } = (await response.json()) as { usage: { prompt_tokens: number; completion_tokens: number } }
  const id = response.headers.get('x-request-id') ?? ''
  const charge = await settled(stack, id)
  expect(charge.charge_nano).toBe(priceOf(charge))
  expect(charge.tokens).toMatchObject({ prompt: usage.prompt_tokens, output: usage.completion_tokens })
  const { attempts } = charge as unknown as { attempts: { outcome: string }[] }
  expect(attempts.map(({ outcome }) => outcome)).toEqual(['node_failed', 'answered'])
  expect(await charges(id)).toBe(1)
})

test('frozen in mid-stream: an error frame; what it had sampled by then is charged when it thaws', async () => {
  const response = await post(stack, talkative(31))
  let frozen: Promise<number> | undefined
  const text = await readUntil(response, (sofar) => {
    if (sofar.split('"content":"').length > 20)
      frozen ??= busy().then(({ pid }) => {
        process.kill(pid, 'SIGSTOP')
        return pid
      })
    return false
  })
  expect(text).toContain('stream_interrupted')
  const id = response.headers.get('x-request-id') ?? ''
  expect((await explain(stack, id)).charge_nano).toBe(0)
  process.kill((await frozen) ?? 0, 'SIGCONT')
  const charge = await settled(stack, id)
  expect(charge.finish).toBe('cancelled')
  expect(charge.charge_nano).toBe(priceOf(charge))
  expect(await charges(id)).toBe(1)
})
