// A miss explained: `GET /v1/usage/{request_id}/prefix` says where a prompt left the path of the account's most similar recent
// prompt, to 16 characters, from hashes alone (trail.ts).
import { inArray } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { usage } from '../schema/db.ts'
import { fail, ok, type Result } from '../schema/errors.ts'
import { KV_PAGE_TOKENS } from '../schema/limits.ts'
import type { UsagePrefix } from '../schema/public_answers.ts'
import type { Comparison } from './account/trails.ts'
import { accountObject, type Env } from './env.ts'
import { knownCaller, REQUEST_ID_IS } from './public_api.ts'
import { placeOf, TRAIL_STEP } from './trail.ts'

interface Booked {
  readonly nodeId: string
  readonly hitTokens: number
  readonly missTokens: number
  readonly openedAt: number
  readonly firstTokenAt: number | null
}

const booked = async (env: Env, ids: readonly string[]): Promise<Map<string, Booked>> => {
  const { requestId, nodeId, hitTokens, missTokens, openedAt, firstTokenAt } = usage
  const rows = await drizzle(env.DB)
    .select({ requestId, nodeId, hitTokens, missTokens, openedAt, firstTokenAt })
    .from(usage)
    .where(inArray(usage.requestId, [...ids]))
  return new Map(rows.map((row) => [row.requestId, row]))
}

/** A chat template has no marks that are known, so the whole prompt is one turn. */
const ONE_TURN = ', counted from the beginning of the prompt, as the turns of this model cannot be told apart'

const pathOf = ({ characters, tags, turns }: Comparison['trail'], best: NonNullable<Comparison['with']>): string => {
  const followed = tags.length * TRAIL_STEP
  if (best.steps === tags.length && characters - followed >= TRAIL_STEP)
    return `The first ${followed} characters are those of the earlier prompt; what follows is not compared.`
  if (best.steps === tags.length) return 'The whole prompt lies on the path of the earlier one.'
  return best.steps === best.of
    ? 'This prompt goes on where the earlier one ended.'
    : `The prompts part in the stretch that left_at names${turns.some(({ at }) => at > 0) ? '' : ONE_TURN}.`
}

const SCORED =
  'The log-probabilities of this prompt’s tokens were asked for (echo with logprobs): such a prompt is computed whole, and nothing of it is taken from the cache.'

/** In words what the figures show. */
const noteOf = (compared: Comparison, own: Booked | undefined, other: Booked | undefined): string => {
  const { trail, with: best } = compared
  if (trail.isScored) return SCORED
  if (trail.characters === 0) return 'A prompt of token ids is not compared.'
  if (!best) return 'No recent prompt of this account that was answered begins like this one.'
  const parted = pathOf(trail, best)
  if (!own || !other) return parted
  if (own.nodeId !== other.nodeId) return `${parted} It was computed on another node than the earlier one.`
  const tokens = own.hitTokens + own.missTokens
  const shared = Math.min(1, ((best.steps + 1) * TRAIL_STEP) / trail.characters) * tokens
  if (shared < KV_PAGE_TOKENS)
    return `${parted} What they share is shorter than a page of ${KV_PAGE_TOKENS} tokens, the least that is reused.`
  const pages = `A node reuses whole pages of ${KV_PAGE_TOKENS} tokens, the last of them before the first difference.`
  if (own.hitTokens > 0) return `${parted} ${pages}`
  // Both by the clock of the node.
  const isThere = other.firstTokenAt !== null && other.firstTokenAt <= own.openedAt
  const why = isThere ? 'the node no longer held it' : 'the earlier prompt was not computed by then'
  return `${parted} ${pages} Nothing was found: ${why}.`
}

export const explainPrefix = async (env: Env, request: Request, requestId: string): Promise<Result<UsagePrefix>> => {
  const caller = await knownCaller(env, request)
  if (!caller.ok) return caller
  const { accountId, family } = caller.value
  const compared = await accountObject(env, accountId).compareTrail(requestId, family)
  if (!compared) {
    return fail('not_found', {
      message: `This key made no request "${requestId}" of late. An account's last 200 are remembered, for a day. ${REQUEST_ID_IS}`,
    })
  }
  const { trail, with: best } = compared
  const rows = await booked(env, [requestId, ...(best ? [best.requestId] : [])])
  const [own, other] = [rows.get(requestId), best && rows.get(best.requestId)]
  const shared = (best?.steps ?? 0) * TRAIL_STEP
  const isWhole = best?.steps === trail.tags.length
  return ok({
    object: 'usage.prefix',
    request_id: requestId,
    prompt_characters: trail.characters,
    ...(own ? { tokens: { prompt: own.hitTokens + own.missTokens, cached: own.hitTokens }, node: own.nodeId } : {}),
    compared_with: best
      ? {
          ...{ request_id: best.family === family ? best.requestId : null, at: best.at },
          ...{ prompt_characters: best.characters, node: other?.nodeId ?? null },
        }
      : null,
    shared_characters: shared,
    /** The first difference is at this character of the turn or one of the following, `resolution_characters` in all. */
    left_at: isWhole ? null : placeOf(trail.turns, shared),
    resolution_characters: TRAIL_STEP,
    note: noteOf(compared, own, other),
  })
}
