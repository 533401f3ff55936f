// Boots what `npm start` boots, on free ports and in a state directory of its own, with one account and key.

import { randomInt } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { adminCall } from '../../scripts/admin_client.ts'
import { firstKey } from '../../scripts/first_account.ts'
import { bootStack, type Stack } from '../../scripts/stack.ts'

/** Often enough for a test to see it. */
const CRON_SECONDS = 5
export const MODEL = 'sparrow-mini'

/** Below those that the system hands out by itself: until it is listened on, nobody else is given it. */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = randomInt(10_000, 32_000)
    const server = createServer()
    const isFree = await new Promise((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    await new Promise((done) => server.close(done))
    return port
  }
}

export interface TestStack extends Stack {
  readonly key: string
  readonly stateDir: string
  admin<T>(method: string, path: string, body?: object): Promise<T>
  /** Stops everything and starts it again on the same state. */
  reboot(): Promise<TestStack>
  remove(): Promise<void>
}

const boot = async (stateDir: string, nodeEnv: Readonly<Record<string, string>>): Promise<TestStack> => {
  const ports = { edgePort: await freePort(), nodePort: await freePort() }
  const stack = await bootStack({ stateDir, ...ports, nodeEnv, cronSeconds: CRON_SECONDS })
  const key = await firstKey(stateDir, stack.baseUrl, stack.secrets, MODEL)
  const stop = async (): Promise<void> => {
    await stack.stop()
  }
  return {
    ...stack,
    key,
    stateDir,
    admin: (method, path, body) =>
      adminCall({
        baseUrl: stack.baseUrl,
        secret: stack.secrets.ADMIN_SECRET,
        method,
        path: `/admin/v1${path}`,
        ...(body ? { body } : {}),
      }),
    reboot: async () => {
      await stop()
      return boot(stateDir, nodeEnv)
    },
    remove: async () => {
      await stop()
      rmSync(stateDir, { recursive: true, force: true })
    },
  }
}

/** `nodeEnv`: settings of the node, for tests that need a slow or a small one. */
export const bootTestStack = (nodeEnv: Readonly<Record<string, string>> = {}): Promise<TestStack> =>
  boot(mkdtempSync(join(tmpdir(), 'sparrow-e2e-')), nodeEnv)

export interface LedgerRow {
  readonly id: string
  readonly kind: string
  readonly amountNano: number
}

export interface UsageRow {
  readonly requestId: string
  readonly hitTokens: number
  readonly missTokens: number
  readonly outputTokens: number
  readonly chargedNano: number
  readonly finish: string
}

/** Polls until `read` returns something; receipts travel on their own path, a moment behind the answer. */
export const eventually = async <T>(read: () => Promise<T | undefined>, ms = 30_000): Promise<T> => {
  const deadline = Date.now() + ms
  for (;;) {
    const value = await read()
    if (value !== undefined) return value
    if (Date.now() > deadline) throw new Error('it did not happen in time')
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
