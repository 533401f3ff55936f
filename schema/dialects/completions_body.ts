// The body of POST /v1/completions, as OpenAI's legacy API and DeepSeek's FIM clients send it.
import { z } from 'zod'
import { MAX_TOKENS_MAX, PROMPT_TOKENS_MAX, PROMPTS_MAX, TOP_LOGPROBS_MAX } from '../limits.ts'
import { caller, streamOptions } from './openai_chat_body.ts'
import { sampling } from './openai_sampling.ts'
import { ENDS } from './read_shape.ts'

/** OpenAI's default, which is small: clients that want more have always said so. */
export const COMPLETION_TOKENS_DEFAULT = 16

const tokenId = z
  .int(ENDS)
  .min(0, ENDS)
  .max(2 ** 22, ENDS)
const tokens = z.array(tokenId).min(1, ENDS).max(PROMPT_TOKENS_MAX, ENDS)
const answerTokens = z.int().min(0).max(MAX_TOKENS_MAX).nullish()
const PROMPTS = `must be a string, an array of token ids, or an array of up to ${PROMPTS_MAX} of either`
const several = <Prompt extends z.ZodType>(prompt: Prompt) => z.array(prompt).min(1).max(PROMPTS_MAX)

const bodyShape = z.object({
  model: z.string().min(1).max(128),
  prompt: z.union([z.string(), several(z.string()), several(tokens), tokens], PROMPTS),
  /** Text behind the gap that the answer fills. */
  suffix: z.string().nullish(),
  echo: z.boolean().nullish(),
  max_tokens: answerTokens.describe('0: no answer; with `echo` and `logprobs` the prompt is scored'),
  max_completion_tokens: answerTokens,
  ...sampling,
  logprobs: z.int().min(0).max(TOP_LOGPROBS_MAX).nullish(),
  ...caller,
  stream: z.boolean().nullish(),
  stream_options: streamOptions.nullish(),
})

type Body = z.infer<typeof bodyShape>

export const completionTokensOf = (body: Pick<Body, 'max_tokens' | 'max_completion_tokens'>): number =>
  body.max_completion_tokens ?? body.max_tokens ?? COMPLETION_TOKENS_DEFAULT

/** A text, or token ids. */
export type GivenPrompt = string | readonly number[]

/** The prompts, of which one may come without an array around it. */
export const promptsIn = ({ prompt }: Pick<Body, 'prompt'>): readonly GivenPrompt[] => {
  if (typeof prompt === 'string') return [prompt]
  return typeof prompt[0] === 'number' ? [prompt as number[]] : (prompt as string[] | number[][])
}

export const completionBodySchema = bodyShape
  .refine((body) => typeof body.suffix !== 'string' || promptsIn(body).every((one) => typeof one === 'string'), {
    path: ['suffix'],
    message: 'does not go with a prompt of token ids',
  })
  .refine((body) => typeof body.suffix !== 'string' || !body.echo || typeof body.logprobs !== 'number', {
    path: ['suffix'],
    message: 'does not go with echo and logprobs together',
  })
  .refine((body) => promptsIn(body).length * (body.n ?? 1) <= PROMPTS_MAX, {
    path: ['n'],
    message: `must not ask for more than ${PROMPTS_MAX} answers, all prompts together`,
  })
  .refine((body) => (body.min_tokens ?? 0) <= Math.min(completionTokensOf(body), MAX_TOKENS_MAX), {
    path: ['min_tokens'],
    message: 'exceeds the most tokens the answer may have',
  })

export type CompletionBody = z.infer<typeof completionBodySchema>
