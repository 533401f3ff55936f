// Typed bindings. Secrets are checked once a isolate; a Worker without them answers nothing rather than something wrong.
import { z } from 'zod'
import type { AccountObject } from './account.ts'

export interface Env {
  readonly DB: D1Database
  readonly EVIDENCE: R2Bucket
  readonly ACCOUNT: DurableObjectNamespace<AccountObject>
  readonly SPARROW_SECRET: string
  readonly ADMIN_SECRET: string
  readonly JOIN_TOKEN: string
  /** Days that a usage row stays in D1. */
  readonly USAGE_DAYS?: string
  /** `off`: a prefix that lies on another node than the one asked is billed as uncached. */
  readonly AFFINITY_CREDIT?: string
}

const secret = z.string().min(32, 'must have at least 32 characters')
const secretsSchema = z.object({ SPARROW_SECRET: secret, ADMIN_SECRET: secret, JOIN_TOKEN: secret })

/** What is wrong with the secrets, or `undefined`. */
export const environmentFault = (env: Env): string | undefined => {
  const parsed = secretsSchema.safeParse(env)
  const issue = parsed.error?.issues[0]
  return issue && `${issue.path.join('.')} ${issue.message}`
}

/** The client's address as Cloudflare gives it; a client cannot set this header itself. */
export const clientIp = (headers: Headers): string | null => headers.get('cf-connecting-ip')

/** The account's Durable Object: the only writer of its money. */
export const accountObject = (env: Env, accountId: string): DurableObjectStub<AccountObject> =>
  env.ACCOUNT.get(env.ACCOUNT.idFromName(accountId))
