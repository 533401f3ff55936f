// What `npm run bench:peer -- --json FILE` writes: everything that was measured, and where.
import { z } from 'zod'
import { limitsSchema, machineSchema } from '../machine.ts'
import { pairsSchema } from './pairs.ts'

const depthSchema = z.object({
  depth: z.number(),
  prefill: pairsSchema,
  decode: pairsSchema,
  /** Seconds the peer took to come here from the depth before; null when it was left out. */
  peerFillSeconds: z.number().nullable(),
  /** Why the peer was left out. */
  skipped: z.string().nullable(),
})

const batchSchema = z.object({ sequences: z.number(), prompt: z.number(), decode: pairsSchema })

/** Over the prompts: of the largest difference among the peer's likeliest `compared` next tokens. */
const differenceSchema = z.object({ least: z.number(), median: z.number(), most: z.number() })
const answersSchema = z.object({
  tokens: z.number(),
  prompts: z.number(),
  compared: z.number(),
  probability: differenceSchema,
  logProbability: differenceSchema,
  /** Prompts after which both engines find the same token likeliest. */
  sameLikeliest: z.number(),
})
export type AnswersResult = z.infer<typeof answersSchema>

export const peerResultSchema = z.object({
  kind: z.literal('bench:peer'),
  machine: machineSchema,
  threads: z.number(),
  /** Before and after; ceilings take the larger. */
  limits: z.array(limitsSchema),
  shape: z.string(),
  parameters: z.number(),
  ours: z.string(),
  peer: z.string(),
  prefillTokens: z.number(),
  decodeTokens: z.number(),
  pairs: z.number(),
  depths: z.array(depthSchema),
  batches: z.array(batchSchema),
  answers: z.array(answersSchema),
})
export type PeerResult = z.infer<typeof peerResultSchema>
