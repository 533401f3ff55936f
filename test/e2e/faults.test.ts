// Processes that die, for real: the node at each stage of a run, the Worker in mid-stream. For each: what the client sees, what is
// charged in the end, and that the books agree with the node's journal.
import { spawnSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { auditBooks } from '../../scripts/admin_audit.ts'
import { ROOT } from '../../scripts/stack.ts'
import { explain, post, priceOf, readUntil, settled, talkative } from './customer.ts'
import { bootTestStack, eventually, type LedgerRow, type TestStack } from './stack.ts'

let stack: TestStack

beforeAll(async () => {
  stack = await bootTestStack({ SPARROW_ISA: 'reference', SPARROW_STEP_TOKENS: '32' })
})
afterAll(() => stack?.remove())

const killNode = (): void => {
  const pid = stack.nodePid()
  if (pid) process.kill(pid, 'SIGKILL')
}

const chargesOf = async (requestId: string): Promise<LedgerRow[]> =>
  (await stack.admin<{ data: LedgerRow[] }>('GET', '/ledger?account=demo')).data.filter(({ id }) => id === requestId)

const journal = () => join(stack.stateDir, 'node', 'journal')

/** Every fault must leave books that agree with themselves, with the object and with the journal. */
afterEach(async () => {
  const report = await eventually(async () => {
    const found = await auditBooks((method, path, body) => stack.admin(method, path, body as object), [journal()])
    return found.ok ? found : undefined
  }, 20_000)
  expect(report.findings).toEqual([])
})

const LONG = Array.from({ length: 90 }, (_, i) => `Fact ${i}: the house number ${i * 7} stands by the river.`).join(' ')

test('the node dies before the first token: 503, never charged, not even by the restarted node', async () => {
  const asked = post(stack, { messages: [{ role: 'user', content: LONG }], max_tokens: 5 })
  await eventually(async () => {
    const metrics = await (await fetch(`${stack.nodeUrl}/metrics`)).text()
    return /^sparrow_journal_open 1/m.test(metrics) ? true : undefined
  })
  killNode()
  const response = await asked
  expect(response.status).toBe(503)
  expect(response.headers.get('x-should-retry')).toBe('true')
  expect(response.headers.get('retry-after')).toBeTruthy()
  const id = response.headers.get('x-request-id') ?? ''
  await stack.restartNode()
  expect(await explain(stack, id)).toMatchObject({ state: 'void', charge_nano: 0 })
  expect(await chargesOf(id)).toEqual([])
})

test('the node dies in mid-stream: an error frame; what its journal holds is charged when it is back', async () => {
  const response = await post(stack, talkative(11))
  let killed = false
  const text = await readUntil(response, (sofar) => {
    // The first PROGRESS record, at 64 tokens, is on its way to the disk by now.
    if (!killed && sofar.split('"content":"').length > 66) {
      killed = true
      killNode()
    }
    return false
  })
  expect(text).toContain('stream_interrupted')
  expect(text).not.toContain('[DONE]')
  const id = response.headers.get('x-request-id') ?? ''
  expect((await explain(stack, id)).charge_nano).toBe(0)
  await stack.restartNode()
  const charge = await settled(stack, id)
  const seen = text.split('"content":"').length - 2
  expect(charge.finish).toBe('node_lost')
  expect(charge.charge_nano).toBe(priceOf(charge))
  expect(charge.tokens?.output).toBeLessThanOrEqual(seen + 64)
})

test('the node dies after the last token, before the edge acknowledged: charged once, when it is back', async () => {
  const response = await post(stack, talkative(22, { max_tokens: 40, stream_options: { include_usage: true } }))
  const text = await readUntil(response, (sofar) => sofar.includes('[DONE]'))
  killNode()
  await stack.restartNode()
  const id = response.headers.get('x-request-id') ?? ''
  const charge = await settled(stack, id)
  expect(text).toContain(`"completion_tokens":${charge.tokens?.output}`)
  expect(await chargesOf(id)).toHaveLength(1)
})

test('the Worker dies in mid-stream: the stream breaks off, the receipt settles when the Worker is back', async () => {
  const response = await post(stack, talkative(23))
  let dead: Promise<void> | undefined
  const text = await readUntil(response, (sofar) => {
    if (sofar.split('"content":"').length > 20) dead ??= stack.killEdge()
    return false
  })
  await dead
  expect(text).not.toContain('[DONE]')
  await stack.restartEdge()
  const id = response.headers.get('x-request-id') ?? ''
  const charge = await settled(stack, id)
  expect(charge.charge_nano).toBe(priceOf(charge))
  expect(charge.tokens?.output).toBeGreaterThan(15)
  expect(await chargesOf(id)).toHaveLength(1)
})

/** What `npm run admin -- audit` says and exits with. */
const command = (journalDir: string) => {
  const done = spawnSync(process.execPath, ['scripts/admin.ts', 'audit', '--json', '--journal', journalDir], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, SPARROW_URL: stack.baseUrl, ADMIN_SECRET: stack.secrets.ADMIN_SECRET },
  })
  const { findings, receipts } = JSON.parse(done.stdout) as { findings: { kind: string }[]; receipts: number }
  return { exit: done.status, kinds: findings.map(({ kind }) => kind), receipts }
}

test('the audit command reads the journal, and exits 1 with what disagrees in a copy that was tampered with', async () => {
  const response = await post(stack, { messages: [{ role: 'user', content: 'Hello!' }] })
  const id = response.headers.get('x-request-id') ?? ''
  await settled(stack, id)
  const sound = command(journal())
  expect(sound).toMatchObject({ exit: 0, kinds: [] })
  expect(sound.receipts).toBeGreaterThan(0)
  const copy = join(stack.stateDir, 'copy')
  cpSync(journal(), copy, { recursive: true })
  const file = join(copy, readdirSync(copy).sort().at(-1) ?? '')
  const lines = readFileSync(file, 'utf8').split('\n')
  writeFileSync(file, lines.filter((line) => !(line.includes('"close"') && line.includes(id))).join('\n'))
  expect(command(copy)).toMatchObject({ exit: 1, kinds: ['booked without a receipt in the journal'] })
  writeFileSync(file, `${lines.join('\n')}00000000 {"t":"close"}\n`)
  expect(command(copy)).toMatchObject({ exit: 1, kinds: ['damaged journal lines'] })
})

test('no log of any process holds a prompt, a key or a signature', async () => {
  const answer = await post(stack, { messages: [{ role: 'user', content: 'a-prompt-nobody-may-log' }], max_tokens: 3 })
  await settled(stack, answer.headers.get('x-request-id') ?? '')
  for (const name of ['edge.log', 'node.log']) {
    const text = readFileSync(join(stack.stateDir, name), 'utf8')
    for (const secret of ['a-prompt-nobody-may-log', 'Anna Ben', stack.key, 'Bearer', ...Object.values(stack.secrets)])
      expect(text).not.toContain(secret)
    expect(text).not.toMatch(/[\w-]{86}/)
  }
})
