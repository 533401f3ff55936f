// Answers of the small public endpoints, for the published document and the tests.
import { z } from 'zod'

const usd = z.string().regex(/^-?\d+\.\d{9}$/)
const nano = z.int().describe('10^-9 USD')

export const modelSchema = z.strictObject({
  id: z.string(),
  object: z.literal('model'),
  created: z.int(),
  owned_by: z.literal('sparrow'),
  context_length: z.int().nullable().describe('Tokens of prompt and answer together; null while no node is known.'),
  max_output_tokens: z.int(),
  pricing: z.strictObject({
    prompt: usd.describe('USD for an uncached prompt token'),
    input_cache_read: usd.describe('USD for a cached prompt token'),
    completion: usd.describe('USD for an output token'),
  }),
})

export const modelListSchema = z.strictObject({ object: z.literal('list'), data: z.array(modelSchema) })

export const balanceSchema = z.strictObject({
  is_available: z.boolean(),
  balance_infos: z.array(
    z.strictObject({
      currency: z.literal('USD'),
      total_balance: usd,
      granted_balance: usd,
      topped_up_balance: usd,
    }),
  ),
})

const tokens = z.strictObject({
  prompt: z.int(),
  cached: z.int(),
  uncached: z.int(),
  output: z.int(),
  reasoning: z.int(),
})

export const usageEntrySchema = z.looseObject({
  object: z.literal('usage.request'),
  request_id: z.uuid(),
  model: z.string(),
  api_key_id: z.string(),
  state: z.string(),
  tokens: tokens.optional(),
  charge_nano: nano,
})

export const usageListSchema = z.looseObject({ object: z.literal('list'), data: z.array(usageEntrySchema) })

/** Where a prompt left the path of an earlier one. */
export const usagePrefixSchema = z.looseObject({
  object: z.literal('usage.prefix'),
  request_id: z.string(),
  prompt_characters: z.int(),
  tokens: z.strictObject({ prompt: z.int(), cached: z.int() }).exactOptional(),
  compared_with: z.looseObject({ request_id: z.string().nullable(), prompt_characters: z.int() }).nullable(),
  shared_characters: z.int(),
  left_at: z.looseObject({}).nullable(),
  resolution_characters: z.int(),
  note: z.string(),
})

export const healthSchema = z.strictObject({ ok: z.literal(true), nodes: z.int() })
