// What an answer in OpenAI's text completion shape looks like, for the published document and the tests. Nothing here is validated at
// run time.
import { z } from 'zod'
import { openAiHeadShape, openAiUsageSchema } from './openai_chat_answer.ts'

const logprobs = z
  .strictObject({
    tokens: z.array(z.string()),
    token_logprobs: z.array(z.number().nullable()).describe('null for the first token of an echoed prompt'),
    top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
    text_offset: z.array(z.int().nonnegative()).describe('Characters from the start of the text'),
  })
  .nullable()

const choice = { text: z.string(), index: z.int().nonnegative(), logprobs }
const finish = z.enum(['stop', 'length', 'insufficient_system_resource'])

export const completionSchema = z.strictObject({
  ...openAiHeadShape,
  object: z.literal('text_completion'),
  choices: z.array(z.strictObject({ ...choice, finish_reason: finish })),
  usage: openAiUsageSchema,
})

/** One event of a stream. */
export const completionChunkSchema = z.strictObject({
  ...openAiHeadShape,
  object: z.literal('text_completion'),
  choices: z.array(z.strictObject({ ...choice, finish_reason: finish.nullable() })),
  usage: openAiUsageSchema.nullable().exactOptional(),
})
