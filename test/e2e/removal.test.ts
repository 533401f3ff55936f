// An operator removes a node in the middle of a run, by the command line; the node dies, starts again and is refused, and what its
// journal holds is charged all the same. Its machine comes back under another name.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { auditBooks } from '../../scripts/admin_audit.ts'
import { ROOT } from '../../scripts/stack.ts'
import { post, priceOf, readUntil, settled, talkative } from './customer.ts'
import { eventually } from './stack.ts'
import { addNode, type BareStack, bootBareStack, ended, type MoreNode, startNode } from './workerd.ts'

const SLOW = { SPARROW_ISA: 'reference' }
let stack: BareStack
let back: ReturnType<typeof startNode> | undefined
let more: MoreNode | undefined

beforeAll(async () => {
  stack = await bootBareStack(SLOW)
})
afterAll(async () => {
  if (back) await ended(back)
  await more?.remove()
  await stack?.remove()
})

const command = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/admin.ts', ...args], {
    ...{ cwd: ROOT, encoding: 'utf8' },
    env: { ...process.env, SPARROW_URL: stack.baseUrl, ADMIN_SECRET: stack.secrets.ADMIN_SECRET },
  })
  return { status, stdout, stderr }
}
const nodes = () => (JSON.parse(command('nodes', '--json').stdout) as { data: { id: string }[] }).data
const hello = { messages: [{ role: 'user', content: 'Hello!' }] }

test('a removed node is refused for good, and what it owes is charged', async () => {
  const id = nodes()[0]?.id ?? ''
  const remove = ['node', 'remove', '--id', id]
  const response = await post(stack, talkative(11, { ignore_eos: true }))
  const said: ReturnType<typeof command>[] = []
  await readUntil(response, (sofar) => {
    if (said.length > 0 || sofar.split('"content":"').length <= 66) return false
    const pid = stack.nodePid() ?? 0
    // Its run must not end while the commands start.
    process.kill(pid, 'SIGSTOP')
    said.push(command(...remove), command(...remove, '--force'))
    process.kill(pid, 'SIGKILL')
    return false
  })
  expect(said[0]).toMatchObject({ status: 1, stderr: expect.stringMatching(/^conflict: .* has 1 run under way/) })
  expect(said[1]).toMatchObject({ status: 0, stdout: expect.stringMatching(`^id: ${id}\nremovedAt: 20.*Z\n$`) })
  expect(nodes()).toEqual([])
  expect((await post(stack, hello)).status).toBe(503)

  const port = Number(new URL(stack.nodeUrl).port)
  back = startNode(stack.stateDir, stack.baseUrl, port, stack.secrets.JOIN_TOKEN, SLOW)
  const charge = await settled(stack, response.headers.get('x-request-id') ?? '')
  expect(charge).toMatchObject({ finish: 'node_lost', charge_nano: priceOf(charge) })
  expect(await (await fetch(`${stack.nodeUrl}/readyz`)).json()).toMatchObject({ reasons: ['not_registered'] })
  expect(nodes()).toEqual([])
  expect(command(...remove)).toEqual(said[1])

  more = await addNode(stack, SLOW)
  expect(nodes().map((node) => node.id === id)).toEqual([false])
  expect((await post(stack, hello)).status).toBe(200)
  const journals = [stack.stateDir, more.stateDir].map((dir) => join(dir, 'node', 'journal'))
  const books = await eventually(async () => {
    const found = await auditBooks((method, path, body) => stack.admin(method, path, body as object), journals)
    return found.ok ? found : undefined
  })
  expect(books.findings).toEqual([])
})
