// What edge tests share: the Worker, an account with a key and credit, registered nodes, signed receipts.
import { runDurableObjectAlarm } from 'cloudflare:test'
import { env, exports } from 'cloudflare:workers'
import type { Admission } from '../../edge/account/admit.ts'
import type { AccountObject } from '../../edge/account.ts'
import { keyHash } from '../../edge/auth.ts'
import { forgetNodes } from '../../edge/live_nodes.ts'
import { signAdminCall } from '../../schema/admin_call.ts'
import { signReceipt } from '../../schema/receipt.ts'
import { signCall } from '../../schema/signature.ts'
import { utf8 } from '../../schema/text.ts'
import type { Receipt, Registration, SegmentAck } from '../../schema/wire.ts'

export const MODEL = 'tiny'
const ORIGIN = 'http://edge.test'

export const call = (path: string, init?: RequestInit): Promise<Response> =>
  (exports as unknown as { default: Fetcher }).default.fetch(ORIGIN + path, init)

export const admin = async (
  method: string,
  path: string,
  body?: object,
  key = crypto.randomUUID(),
): Promise<Response> => {
  const text = body ? JSON.stringify(body) : ''
  const signed = { method, path: `/admin/v1${path}`, idempotencyKey: key, body: utf8(text) }
  return call(signed.path, {
    method,
    headers: { authorization: await signAdminCall(env.ADMIN_SECRET, signed), 'idempotency-key': key },
    ...(body ? { body: text } : {}),
  })
}

const value = async <T>(response: Promise<Response>): Promise<T> => {
  const got = await response
  if (!got.ok) throw new Error(await got.text())
  return got.json<T>()
}

export interface Account {
  readonly id: string
  readonly key: string
  readonly keyId: string
}

export const openAccount = async (creditNano: number): Promise<Account> => {
  const name = crypto.randomUUID()
  await value(admin('PUT', '/prices', { model: MODEL, hitNano: 28, missNano: 280, outputNano: 420 }))
  const { id } = await value<{ id: string }>(admin('POST', '/accounts', { name, creditNano }))
  const made = await value<{ id: string; key: string }>(admin('POST', '/keys', { account: id, name: 'k' }))
  return { id, key: made.key, keyId: made.id }
}

export interface TestNode {
  readonly id: string
  readonly privateKey: CryptoKey
}

/** A node that behaves as its id says (nodes.ts). */
export const registerNode = async (id: string, running = 0, changes: Partial<Registration> = {}): Promise<TestNode> => {
  const pair = (await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])) as CryptoKeyPair
  const jwk = (await crypto.subtle.exportKey('jwk', pair.publicKey)) as JsonWebKey
  await env.DB.prepare('DELETE FROM nodes WHERE id = ?').bind(id).run()
  await value(
    call('/internal/register', {
      method: 'POST',
      headers: { authorization: `Bearer ${env.JOIN_TOKEN}` },
      body: JSON.stringify({
        nodeId: id,
        address: env.NODE_ADDRESSES[id],
        publicKey: jwk.x,
        model: MODEL,
        chatFormat: 'deepseek_v32',
        contextTokens: 4096,
        load: { running, waiting: 0, kvPages: 1, kvPagesUsed: 0, prefillTokensPerSecond: 1000 },
        ...changes,
      }),
    }),
  )
  forgetNodes()
  // No heartbeat follows: on a machine that stands still for a while the node must not grow stale.
  await env.DB.prepare('UPDATE nodes SET heartbeat_at = heartbeat_at + 3600000 WHERE id = ?').bind(id).run()
  return { id, privateKey: pair.privateKey }
}

export const removeNodes = async (): Promise<void> => {
  forgetNodes()
  await env.DB.prepare('DELETE FROM nodes').run()
}

export const chat = (key: string, body: object = {}, headers: Record<string, string> = {}): Promise<Response> =>
  call('/v1/chat/completions', {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, ...headers },
    body: JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 10, ...body }),
  })

export const idOf = (response: Response): string => response.headers.get('x-request-id') ?? ''

/** No two receipts stand at one place of a journal. */
let position = 0

export const receiptOf = (
  node: TestNode,
  account: Account,
  requestId: string,
  changes: Partial<Receipt> = {},
): Receipt => ({
  version: 1,
  requestId,
  attempt: 1,
  accountId: account.id,
  keyId: account.keyId,
  nodeId: node.id,
  epoch: 'e1',
  seq: position++,
  model: MODEL,
  hitTokens: 0,
  missTokens: 10,
  outputTokens: 5,
  reasoningTokens: 0,
  finish: 'stop',
  openedAt: 1000,
  firstTokenAt: 1001,
  closedAt: 1002,
  prefix: [],
  ...changes,
})

export const COST = 10 * 280 + 5 * 420

/** The first segment of a chain of its own. */
export const newLink = () => ({ chain: crypto.randomUUID(), index: 0, previous: '' })

export const send = async (node: TestNode, receipts: readonly Receipt[], by: TestNode = node): Promise<SegmentAck> => {
  const signed = await Promise.all(receipts.map((receipt) => signReceipt(node.privateKey, receipt)))
  const body = utf8(JSON.stringify({ nodeId: node.id, link: newLink(), receipts: signed }))
  const authorization = await signCall(by.privateKey, 'EdDSA', by.id, 'edge', body)
  return value(call('/internal/receipts', { method: 'POST', headers: { authorization }, body }))
}

export const balanceOf = async (account: Account): Promise<string> => {
  const answer = await value<{ balance_infos: { total_balance: string }[] }>(
    call('/user/balance', { headers: { authorization: `Bearer ${account.key}` } }),
  )
  return answer.balance_infos[0]?.total_balance ?? ''
}

/** The account's own object, for what no endpoint shows. */
export const objectOf = (account: Account): DurableObjectStub<AccountObject> => {
  const namespace = (env as unknown as { ACCOUNT: DurableObjectNamespace<AccountObject> }).ACCOUNT
  return namespace.get(namespace.idFromName(account.id))
}

/** What the edge asks the object for one run; 20 prompt bytes and 10 tokens unless told. */
export const admissionOf = (account: Account, changes: Partial<Admission> = {}): Admission => ({
  requestId: crypto.randomUUID(),
  keyHash: keyHash(env.SPARROW_SECRET, account.key),
  model: MODEL,
  promptBytes: 20,
  maxTokens: 10,
  ip: null,
  fingerprint: null,
  idempotencyKey: null,
  isRetry: false,
  trail: null,
  ...changes,
})

/** So much later than its object wants it comes an alarm by itself (setup.ts): on a slow machine, too, tests alone say when one runs. */
export const ALARM_LATE_MS = 3_600_000

/** Lets the account's alarm run now. */
export const alarm = async (account: Account): Promise<void> => {
  await runDurableObjectAlarm(objectOf(account))
}

/** Carries the account's rows to D1. */
export const flush = async (account: Account): Promise<void> => {
  do await alarm(account)
  while ((await objectOf(account).books()).waiting > 0)
}

/** A call with the account's ordinary key. */
export const asCustomer = (account: Account, path: string, init: RequestInit = {}): Promise<Response> =>
  call(path, { ...init, headers: { authorization: `Bearer ${account.key}`, ...init.headers } })
