// What is loaded: a URL that was given, or the whole stack of this repository with the embedded model, its context as long as
// the prompts need.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { adminCall } from '../../../scripts/admin_client.ts'
import { DEMO_ACCOUNT, firstKey } from '../../../scripts/first_account.ts'
import { bootStack } from '../../../scripts/stack.ts'
import { freePort } from '../../e2e/stack.ts'

const CREDIT_NANO = 1e14

export interface Served {
  readonly url: string
  readonly key: string
  /** Resolves when nothing runs or waits there any more, as far as it can be seen. */
  idle(): Promise<void>
  stop(): Promise<void>
}

const healthSchema = z.object({ running: z.number(), waiting: z.number() })

export const bootServed = async (modelDir: string, model: string, prefixCache: 'on' | 'off'): Promise<Served> => {
  const stateDir = mkdtempSync(join(tmpdir(), 'sparrow-bench-'))
  const nodeEnv = { SPARROW_MODEL_DIR: modelDir, SPARROW_MODEL_NAME: model, SPARROW_PREFIX_CACHE: prefixCache }
  const stack = await bootStack({ stateDir, edgePort: await freePort(), nodePort: await freePort(), nodeEnv })
  const key = await firstKey(stateDir, stack.baseUrl, stack.secrets, model)
  const { baseUrl, nodeUrl, secrets } = stack
  const body = { account: DEMO_ACCOUNT, amountNano: CREDIT_NANO }
  await adminCall({ baseUrl, secret: secrets.ADMIN_SECRET, method: 'POST', path: '/admin/v1/topups', body })
  return {
    ...{ url: baseUrl, key },
    idle: async () => {
      for (let quiet = 0; quiet < 3; await sleep(100)) {
        const { running, waiting } = healthSchema.parse(await (await fetch(`${nodeUrl}/healthz`)).json())
        quiet = running + waiting === 0 ? quiet + 1 : 0
      }
    },
    stop: async () => {
      await stack.stop()
      rmSync(stateDir, { recursive: true, force: true })
    },
  }
}

export const remoteServed = (url: string, key: string): Served => ({
  ...{ url, key },
  idle: () => sleep(2000),
  stop: async () => {},
})
