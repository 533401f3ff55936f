// What a key, or a whole account, may do in a minute and in a month. A field that is absent sets no limit.
import { z } from 'zod'
import { isIpRange } from './ip.ts'
import { AMOUNT_MAX_NANO } from './limits.ts'

const perMinute = z.int().min(1).max(1e12)

export const keyLimitsSchema = z.strictObject({
  requestsPerMinute: perMinute.optional(),
  /** Prompt tokens that were really computed, and output tokens. */
  uncachedTokensPerMinute: perMinute.optional(),
  /** Prompt tokens that came from the cache. */
  cachedTokensPerMinute: perMinute.optional(),
  concurrency: z.int().min(1).max(10_000).optional(),
  /** Spent in a calendar month, UTC; open holds count. */
  monthlyBudgetNano: z.int().min(0).max(AMOUNT_MAX_NANO).optional(),
  models: z.array(z.string().min(1).max(128)).min(1).max(100).optional(),
  /** Addresses or ranges, IPv4 or IPv6: `203.0.113.0/24`. */
  ipRanges: z.array(z.string().max(64).refine(isIpRange, 'is no IP address or range')).min(1).max(100).optional(),
  /** `false`: a prefix that lies on another node than the one asked is billed as uncached. */
  affinityCredit: z.boolean().optional(),
})
export type KeyLimits = z.infer<typeof keyLimitsSchema>
