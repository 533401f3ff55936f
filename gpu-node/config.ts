// Every setting of a node, in one typed table, read from the environment once at start-up. An unknown SPARROW_ name is an
// error: a misspelt setting must not pass for a default.
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'

const MODEL_DIR = fileURLToPath(new URL('./model', import.meta.url).href)

const count = (least: number, most: number) => z.coerce.number().int().min(least).max(most)

const settings = z.object({
  SPARROW_EDGE_URL: z
    .url({ protocol: /^https?$/, error: 'must begin with http:// or https://' })
    .describe('base address of the edge'),
  SPARROW_JOIN_TOKEN: z.string().min(1).describe('admits this node at the edge'),
  SPARROW_NODE_ID: z
    .string()
    .regex(/^[\w.-]{1,64}$/)
    .optional()
    .describe('name of this node; default: random, kept in the state directory'),
  SPARROW_NODE_HOST: z.string().min(1).default('127.0.0.1').describe('address to listen on'),
  SPARROW_NODE_PORT: count(0, 65_535).default(8788).describe('port to listen on; 0: any free one'),
  SPARROW_NODE_ADDRESS: z
    .url({ protocol: /^https?$/, error: 'must begin with http:// or https://' })
    .optional()
    .describe('base address at which the edge reaches this node'),
  SPARROW_MODEL_DIR: z.string().min(1).default(MODEL_DIR).describe('checkpoint: config, weights, tokenizer'),
  SPARROW_MODEL_NAME: z.string().min(1).max(128).default('sparrow-mini').describe('public name of the model'),
  SPARROW_CHAT_FORMAT: z.string().min(1).max(32).default('auto').describe('auto, deepseek_v32 or jinja'),
  SPARROW_STATE_DIR: z.string().min(1).default('.sparrow/node').describe('identity and receipt journal'),
  SPARROW_THREADS: count(1, 1024).optional().describe('engine threads; default: one a core'),
  SPARROW_ISA: z
    .enum(['auto', 'reference', 'scalar', 'avx2', 'avx512', 'avx2bf16', 'avx512bf16', 'amxbf16'])
    .default('auto')
    .describe('kernels to use'),
  SPARROW_KV: z.enum(['auto', 'fp8']).default('auto').describe('what KV pages hold'),
  SPARROW_ATTENTION: z.enum(['invariant', 'fastest']).default('invariant').describe('form of attention in prefill'),
  SPARROW_KV_PAGES: count(1, 1e9).optional().describe('KV pages of 64 tokens'),
  SPARROW_KV_BYTES: count(1, 2 ** 50)
    .optional()
    .describe('memory of KV pages, where their number is not set'),
  SPARROW_CACHE_DIR: z.string().min(1).optional().describe('KV pages on disk; default: cache in the state directory'),
  SPARROW_CACHE_BYTES: count(0, 2 ** 50)
    .default(4 * 2 ** 30)
    .describe('size of that folder at most; 0: none'),
  SPARROW_PREFIX_CACHE: z
    .enum(['on', 'off'])
    .default('on')
    .describe('compute every prompt whole: no page is reused, in memory or from disk'),
  SPARROW_CONTEXT_TOKENS: count(2, 1e7).optional().describe("cap on the model's own context"),
  SPARROW_STEP_TOKENS: count(1, 8192).optional().describe('tokens a step, at most, unless more sequences decode'),
  SPARROW_RUNNING_MAX: count(1, 4096).default(256).describe('sequences that run at once'),
  SPARROW_SPECULATE: z
    .enum(['on', 'off'])
    .default('on')
    .describe("guess ahead with the checkpoint's next-token-prediction layer, where it has one"),
  SPARROW_QUEUE_MAX: count(1, 100_000).default(128).describe('runs that may wait for the engine'),
  SPARROW_QUEUE_SHARE: z.coerce
    .number()
    .min(0.01)
    .max(1)
    .default(0.5)
    .describe('part of them that one account may hold'),
  SPARROW_PENDING_MAX: count(1, 1e7).default(20_000).describe('unacknowledged receipts before runs are refused'),
  SPARROW_DRAIN_SECONDS: count(0, 3600).default(30).describe('time running requests get after SIGTERM'),
  SPARROW_STUCK_SECONDS: count(1, 86_400).default(60).describe('an engine with work and no step for so long is stuck'),
  SPARROW_STALL_SECONDS: count(1, 86_400).default(120).describe('a reader that takes nothing for so long is cut off'),
  SPARROW_KEEP_ALIVE_SECONDS: z.coerce
    .number()
    .min(0.05)
    .max(3600)
    .default(5)
    .describe('a silent stream, queued or not, gets a comment so often'),
})

export type Settings = z.infer<typeof settings>

/** Names that belong to other programs of this repository and may stand in the same environment. */
const FOREIGN = new Set([
  'SPARROW_HOME',
  'SPARROW_PORT',
  'SPARROW_RESTART_SECONDS',
  'SPARROW_SECRET',
  'SPARROW_URL',
  'SPARROW_BASE_URL',
  'SPARROW_API_KEY',
])

/** A setting, file or checkpoint the operator can mend; `message` says how, in one line. */
export class StartError extends Error {}

/** Reads and checks the environment. Errors: StartError that names the setting. */
export const readSettings = (env: Readonly<Record<string, string | undefined>>): Settings => {
  const own = Object.keys(settings.shape)
  for (const name of Object.keys(env)) {
    if (!name.startsWith('SPARROW_') || own.includes(name) || FOREIGN.has(name)) continue
    throw new StartError(`${name} is not a setting of the node. Known: ${own.join(', ')}.`)
  }
  // An empty variable is how shells spell "not set".
  const given = Object.fromEntries(own.map((name) => [name, env[name] === '' ? undefined : env[name]]))
  const parsed = settings.safeParse(given)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    const name = String(issue?.path[0] ?? 'settings')
    const what = settings.shape[name as keyof Settings]?.description ?? ''
    throw new StartError(
      `${name} (${what}): ${given[name] === undefined ? 'is not set' : (issue?.message ?? 'wrong')}.`,
    )
  }
  const { SPARROW_NODE_HOST: host, SPARROW_NODE_ADDRESS: address } = parsed.data
  if (!address && ['0.0.0.0', '::'].includes(host)) {
    throw new StartError('SPARROW_NODE_ADDRESS must say how the edge reaches a node that listens on every address.')
  }
  return { ...parsed.data, SPARROW_STATE_DIR: resolve(parsed.data.SPARROW_STATE_DIR) }
}
