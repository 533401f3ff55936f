// Answers of the small public endpoints, for the published document and the tests.
import { z } from 'zod'
import { FINISH_REASONS } from './wire.ts'

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
      held_balance: usd.describe(
        'Of the total, what requests under way hold: the most that each may cost. Its receipt gives the rest back. Only Sparrow has this field.',
      ),
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

const time = z.int().describe('Unix milliseconds')

const request = {
  object: z.literal('usage.request'),
  request_id: z.uuid(),
  model: z.string(),
  api_key_id: z.string(),
}
const charge = { charge_nano: nano, charge_usd: usd }

const summary = {
  ...request,
  state: z.literal('settled'),
  finish: z.enum(FINISH_REASONS).describe('How the run ended; what a cancelled one computed is charged.'),
  tokens,
  ...charge,
  refund_nano: nano.exactOptional().describe('Given back after the charge, in 10^-9 USD'),
  settled_at: time,
}

export const USAGE_PAGE = 20
const USAGE_PAGE_MAX = 100

export const usageQuery = {
  from: z.int().min(0).describe('Unix milliseconds: settled at or after'),
  to: z.int().min(0).describe('Unix milliseconds: settled before'),
  limit: z.int().min(1).max(USAGE_PAGE_MAX).describe(`1 to ${USAGE_PAGE_MAX}, ${USAGE_PAGE} where absent`),
  after: z.uuid().describe('Last request id of the page before'),
}

export const usageListSchema = z.strictObject({
  object: z.literal('list'),
  data: z.array(z.strictObject(summary)),
  has_more: z.boolean().describe('Whether there are older ones: ask again with the last request id as `after`.'),
})

/** What `GET /v1/usage/daily` covers where `from` is absent, and at most. */
export const USAGE_DAYS_SHOWN = 30
export const USAGE_DAYS_MAX = 366

export const usageDailyQuery = {
  from: z.iso.date().describe(`First day, UTC (2026-01-31); where absent, ${USAGE_DAYS_SHOWN} days end with \`to\``),
  to: z.iso.date().describe(`Last day, included; today where absent. ${USAGE_DAYS_MAX} days at most`),
}

const usageDay = z.strictObject({
  date: z.iso.date().describe('UTC'),
  model: z.string(),
  requests: z.int(),
  tokens: tokens.omit({ reasoning: true }),
  ...charge,
  charge_nano: nano.describe('Costs less credits, in 10^-9 USD; refunds are not taken off'),
  credit_nano: nano,
  costs: z
    .strictObject({
      cached_nano: nano,
      uncached_nano: nano,
      output_nano: nano,
      saved_nano: nano.describe('Cached tokens x what they were cheaper than uncached ones'),
      refund_nano: nano.describe('Given back after the charge'),
    })
    .nullable()
    .describe('null: not kept, of days from before an update of the service'),
})

export const usageDailySchema = z.strictObject({
  object: z.literal('usage.daily'),
  from: z.iso.date(),
  to: z.iso.date(),
  data: z.array(usageDay).describe('By day and model, oldest first; those without a request are left out.'),
})

const line = z.strictObject({
  item: z.string(),
  quantity: z.int().exactOptional().describe('Tokens'),
  unit_nano: nano.exactOptional(),
  amount_nano: nano.describe('10^-9 USD; below zero: a credit'),
})

const how = {
  lines: z.array(line).describe('Their amounts sum to charge_nano less refund_nano.'),
  price_version: time.describe('Since when the price has been in force, Unix milliseconds'),
  hold: z.strictObject({ amount_nano: nano, at: time, returned_nano: nano }),
  attempts: z.array(
    z.strictObject({
      attempt: z.int(),
      node: z.string(),
      outcome: z.string().describe('`answered`, or the code of the error'),
    }),
  ),
}

const settledSchema = z.strictObject({
  ...summary,
  ...how,
  credit_nano: nano.describe('What the lines give back of usage x price, in 10^-9 USD'),
  repeats: z.string().exactOptional().describe('The request of which this was a retry'),
  timing: z.strictObject({ opened_at: time, first_token_at: time.nullable(), closed_at: time }),
  receipt: z.strictObject({ node: z.string(), epoch: z.string(), seq: z.int(), signature: z.string() }),
})

const pendingSchema = z.strictObject({
  ...request,
  state: z
    .enum(['open', 'settled', 'void', 'released'])
    .describe('Before its lines are there, or for good where nothing was charged'),
  note: z.string(),
  ...charge,
  ...how,
  lines: z.array(line).max(0),
})

export const usageEntrySchema = z.union([settledSchema, pendingSchema])

/** Where a prompt left the path of an earlier one. */
export const usagePrefixSchema = z.strictObject({
  object: z.literal('usage.prefix'),
  request_id: z.string(),
  prompt_characters: z.int(),
  tokens: z
    .strictObject({ prompt: z.int(), cached: z.int() })
    .exactOptional()
    .describe('As charged; absent until then'),
  node: z.string().exactOptional(),
  compared_with: z
    .strictObject({
      request_id: z.string().nullable().describe('null: made with another key of the account'),
      at: time,
      prompt_characters: z.int(),
      node: z.string().nullable(),
    })
    .nullable()
    .describe('null: none of the last 200 of a day begins alike'),
  shared_characters: z.int(),
  left_at: z
    .strictObject({
      message: z.int().describe('Turn of the conversation, from 0'),
      role: z.enum(['system', 'user', 'assistant', 'tool']),
      character: z.int().describe('Characters of that turn before the stretch in which the prompts part'),
    })
    .nullable()
    .describe('null: the prompt lies on the path of the earlier one, as far as it is compared (262,144 characters)'),
  resolution_characters: z.int(),
  note: z.string(),
})

export const healthSchema = z.strictObject({ ok: z.literal(true), nodes: z.int() })

export type UsageDaily = z.infer<typeof usageDailySchema>
export type UsageList = z.infer<typeof usageListSchema>
export type SettledUsage = z.infer<typeof settledSchema>
export type PendingUsage = z.infer<typeof pendingSchema>
export type UsagePrefix = z.infer<typeof usagePrefixSchema>
