// All three secrets of a running stack replaced, as README tells it: no request fails on the way, and in the end the old ones are dead.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { auditBooks } from '../../scripts/admin_audit.ts'
import { adminCall } from '../../scripts/admin_client.ts'
import { deriveBills, resealAll } from '../../scripts/admin_evidence.ts'
import { firstKey } from '../../scripts/first_account.ts'
import { loadSecrets } from '../../scripts/stack.ts'
import { post, settled } from './customer.ts'
import { bootTestStack, eventually, MODEL, type TestStack } from './stack.ts'

let stack: TestStack
beforeAll(async () => {
  stack = await bootTestStack()
})
afterAll(() => stack?.remove())

const file = () => join(stack.stateDir, 'dev.env')
const keyFile = () => join(stack.stateDir, 'api_key')
const restartEdge = async () => {
  await stack.killEdge()
  await stack.restartEdge()
}
const admin = <T>(method: string, path: string, body?: object): Promise<T> => {
  const secret = loadSecrets(stack.stateDir).ADMIN_SECRET
  const call = { baseUrl: stack.baseUrl, secret, method, path: `/admin/v1${path}` }
  return adminCall<T>({ ...call, ...(body ? { body } : {}) })
}
const ask = (key: string) =>
  post({ baseUrl: stack.baseUrl, key }, { messages: [{ role: 'user', content: 'Hello!' }], max_tokens: 5 })
const idOf = (response: Response) => response.headers.get('x-request-id') ?? ''

test('secrets are replaced under a running node, and the old ones die when they are taken away', async () => {
  const first = await ask(stack.key)
  expect(first.status).toBe(200)
  await settled(stack, idOf(first))

  const lines = readFileSync(file(), 'utf8').trim().split('\n')
  const former = lines.map((line) => line.replace('=', '_PREVIOUS='))
  const fresh = lines.map((line) => `${line.split('=')[0]}=${crypto.randomUUID()}${crypto.randomUUID()}`)
  writeFileSync(file(), [...fresh, ...former, ''].join('\n'))
  await restartEdge()
  const since = Date.now()
  // The node knows nothing of it yet.
  expect((await ask(stack.key)).status).toBe(200)
  expect(await stack.admin<object>('GET', '/accounts')).toBeTruthy()
  const [old] = (await admin<{ data: { id: string }[] }>('GET', '/keys')).data
  const { key } = await admin<{ key: string }>('POST', `/keys/${old?.id}/rotate`, {})
  expect((await ask(key)).status).toBe(200)
  expect(await resealAll(admin)).toMatchObject({ ok: true, refused: 0 })
  await eventually(async () => {
    const { data } = await admin<{ data: { heartbeatAt: number }[] }>('GET', '/nodes')
    return (data[0]?.heartbeatAt ?? 0) > since ? true : undefined
  })

  writeFileSync(file(), [...fresh, ''].join('\n'))
  await restartEdge()
  expect((await ask(stack.key)).status).toBe(401)
  await expect(stack.admin('GET', '/accounts')).rejects.toMatchObject({ status: 401 })
  const last = await ask(key)
  expect(last.status).toBe(200)
  await settled({ baseUrl: stack.baseUrl, key }, idOf(last))
  const books = await eventually(async () => {
    const found = await auditBooks(admin, [join(stack.stateDir, 'node', 'journal')])
    return found.ok ? found : undefined
  })
  expect(books.findings).toEqual([])
  expect((await deriveBills(admin, Date.now())).findings).toEqual([])
  // Whoever loses the key of `npm start` gets another, of the same account.
  rmSync(keyFile())
  const another = await firstKey(stack.stateDir, stack.baseUrl, loadSecrets(stack.stateDir), MODEL)
  expect((await ask(another)).status).toBe(200)
  const logs = ['edge.log', 'node.log'].map((name) => readFileSync(join(stack.stateDir, name), 'utf8')).join('')
  for (const line of [...lines, ...fresh]) expect(logs).not.toContain(line.slice(line.indexOf('=') + 1))
})

test.each(['rotate', 'revoke'])(
  'where the key of `npm start` is gone, after a %s, the next start makes one that works',
  async (end) => {
    // A first key of its own for each: it hangs on the secret.
    const lines = readFileSync(file(), 'utf8').trim().split('\n')
    const others = lines.filter((line) => !line.startsWith('SPARROW_SECRET'))
    writeFileSync(file(), [`SPARROW_SECRET=${crypto.randomUUID()}`, ...others, ''].join('\n'))
    await restartEdge()
    const start = async (): Promise<string> => {
      rmSync(keyFile(), { force: true })
      return firstKey(stack.stateDir, stack.baseUrl, loadSecrets(stack.stateDir), MODEL)
    }
    const key = await start()
    const { data } = await admin<{ data: { id: string; lastFour: string }[] }>('GET', '/keys')
    const id = data.find((row) => row.lastFour === key.slice(-4))?.id
    await admin('POST', `/keys/${id}/${end}`, end === 'rotate' ? { overlapSeconds: 0 } : {})
    const next = await start()
    expect(next).not.toBe(key)
    const balance = (of: string) =>
      fetch(`${stack.baseUrl}/user/balance`, { headers: { authorization: `Bearer ${of}` } }).then(
        ({ status }) => status,
      )
    expect([await balance(key), await balance(next)]).toEqual([401, 200])
  },
)
