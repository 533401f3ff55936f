// POST /tokenize: what a prompt is in tokens, asked by the edge for clients that count before they pay. Costs no engine time.
import { fail, ok, type Result } from '../schema/errors.ts'
import { type TokenizeAnswer, tokenizeRequestSchema } from '../schema/wire.ts'
import type { Workshop } from './generate.ts'
import { notHere } from './prepare.ts'

/** `json`: the verified body. Errors: invalid_request; no_node where this node serves another model. */
export const tokenize = async (
  shop: Pick<Workshop, 'model' | 'tokenizer' | 'engine'>,
  json: unknown,
): Promise<Result<TokenizeAnswer>> => {
  const parsed = tokenizeRequestSchema.safeParse(json)
  if (!parsed.success) return fail('invalid_request', { message: parsed.error.message })
  const { model, text, withIds, cacheSalt } = parsed.data
  if (model !== shop.model) return notHere(`the model ${model}`)
  const { ids } = await shop.tokenizer.encode(text, cacheSalt)
  const answer = { count: ids.length, contextTokens: shop.engine.info.contextLength }
  return ok(withIds ? { ...answer, ids: Array.from(ids) } : answer)
}
