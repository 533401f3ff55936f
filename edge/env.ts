// Typed bindings. Secrets and settings are checked once an environment; a Worker without them answers nothing rather than something wrong.
import { z } from 'zod'
import { HEARTBEAT_SECONDS } from '../schema/limits.ts'
import type { AccountObject } from './account.ts'
import type { Secrets } from './auth.ts'

export interface Env {
  readonly DB: D1Database
  readonly EVIDENCE: R2Bucket
  readonly ACCOUNT: DurableObjectNamespace<AccountObject>
  readonly SPARROW_SECRET: string
  readonly ADMIN_SECRET: string
  readonly JOIN_TOKEN: string
  /** What was replaced: still taken for right where something is verified, never used to make anything. */
  readonly SPARROW_SECRET_PREVIOUS?: string
  readonly ADMIN_SECRET_PREVIOUS?: string
  readonly JOIN_TOKEN_PREVIOUS?: string
  /** Days that a usage row stays in D1. */
  readonly USAGE_DAYS?: string
  /** How often a node that owes an answer is asked whether it lives. */
  readonly PULSE_SECONDS?: string
  /** `off`: a prefix that lies on another node than the one asked is billed as uncached. */
  readonly AFFINITY_CREDIT?: string
  /** Names that stand for a model; wrangler.toml has the usual ones. */
  readonly MODEL_ALIASES?: unknown
}

const secret = z.string().min(32, 'must have at least 32 characters')
/** Without quotes in wrangler.toml it is a number. */
const above0 = (unit: string) =>
  z.coerce
    .string()
    .regex(/^\d+(\.\d+)?$/, `must be a number of ${unit}`)
    .refine((text) => Number(text) > 0, 'must be above 0')
    .optional()
const aliasSchema = z.strictObject({
  /** Absent: the model that most live nodes serve. */
  model: z.string().min(1).max(128).optional(),
  thinking: z.boolean().default(false),
})
const aliasesSchema = z.record(z.string().min(1).max(128), aliasSchema).default({})
const environmentSchema = z.object({
  ...{ SPARROW_SECRET: secret, ADMIN_SECRET: secret, JOIN_TOKEN: secret },
  SPARROW_SECRET_PREVIOUS: secret.optional(),
  ADMIN_SECRET_PREVIOUS: secret.optional(),
  JOIN_TOKEN_PREVIOUS: secret.optional(),
  MODEL_ALIASES: aliasesSchema,
  AFFINITY_CREDIT: z.enum(['on', 'off']).optional(),
  USAGE_DAYS: above0('days'),
  PULSE_SECONDS: above0('seconds'),
})

export type Aliases = z.infer<typeof aliasesSchema>

interface Checked {
  readonly fault?: string
  readonly aliases: Aliases
}

/** An isolate gives each of its requests the same environment object. */
const checked = new WeakMap<Env, Checked>()

const check = (env: Env): Checked => {
  const known = checked.get(env)
  if (known) return known
  const { data, error } = environmentSchema.safeParse(env)
  const issue = error?.issues[0]
  const fault = issue && `${issue.path.join('.')} ${issue.message}`
  const fresh = { aliases: data?.MODEL_ALIASES ?? {}, ...(fault ? { fault } : {}) }
  checked.set(env, fresh)
  return fresh
}

/** Of an environment without fault. */
export const aliasesOf = (env: Env): Aliases => check(env).aliases

/** What is wrong with secrets or settings, or `undefined`. */
export const environmentFault = (env: Env): string | undefined => check(env).fault

export const secretsOf = (env: Env, name: 'SPARROW_SECRET' | 'ADMIN_SECRET' | 'JOIN_TOKEN'): Secrets => {
  const previous = env[`${name}_PREVIOUS`]
  return previous === undefined ? [env[name]] : [env[name], previous]
}

export const pulseMs = ({ PULSE_SECONDS: seconds }: Env): number => Number(seconds ?? HEARTBEAT_SECONDS) * 1000

/** Of `192.0.2.1:4711` or `[2001:db8::1]:4711`. */
const hostOf = (address: unknown): string | null =>
  typeof address === 'string' ? (/^\[?(.*?)\]?:\d+$/.exec(address)?.[1] ?? null) : null

/**
 * The client's address as Cloudflare gives it; a client cannot set that header itself. A workerd of one's own knows the socket's, which
 * counts where no proxy before it has set the header.
 */
export const clientIp = ({ headers, cf }: Request): string | null =>
  headers.get('cf-connecting-ip') ?? hostOf(cf?.clientIp)

/** The account's Durable Object: the only writer of its money. */
export const accountObject = (env: Env, accountId: string): DurableObjectStub<AccountObject> =>
  env.ACCOUNT.get(env.ACCOUNT.idFromName(accountId))
