// The body of POST /v1/completions, as OpenAI's legacy API and DeepSeek's FIM clients send it.
import { z } from 'zod'
import { MAX_TOKENS_MAX, PROMPT_TOKENS_MAX, TOP_LOGPROBS_MAX } from '../limits.ts'
import { caller, streamOptions } from './openai_chat_body.ts'
import { sampling, tokenLimit } from './openai_sampling.ts'

/** OpenAI's default, which is small: clients that want more have always said so. */
export const COMPLETION_TOKENS_DEFAULT = 16

const tokenId = z
  .int()
  .min(0)
  .max(2 ** 22)
const tokens = z.array(tokenId).min(1).max(PROMPT_TOKENS_MAX)
const ONE = 'must be a string or an array of token ids; of several prompts, send each in a request of its own'

const bodyShape = z.object({
  model: z.string().min(1).max(128),
  prompt: z.union([z.string(), z.tuple([z.string()]), z.tuple([tokens]), tokens], ONE),
  /** Text behind the gap that the answer fills. */
  suffix: z.string().nullish(),
  echo: z.boolean().nullish(),
  max_tokens: tokenLimit,
  max_completion_tokens: tokenLimit,
  ...sampling,
  logprobs: z.int().min(0).max(TOP_LOGPROBS_MAX).nullish(),
  ...caller,
  stream: z.boolean().nullish(),
  stream_options: streamOptions.nullish(),
})

type Body = z.infer<typeof bodyShape>

export const completionTokensOf = (body: Pick<Body, 'max_tokens' | 'max_completion_tokens'>): number =>
  body.max_completion_tokens ?? body.max_tokens ?? COMPLETION_TOKENS_DEFAULT

/** The one prompt, out of the arrays that it may come in. */
export const promptOf = ({ prompt }: Pick<Body, 'prompt'>): string | readonly number[] => {
  if (typeof prompt === 'string') return prompt
  const [first] = prompt
  return typeof first === 'number' ? (prompt as number[]) : first
}

const isTokens = (body: Body): boolean => typeof promptOf(body) !== 'string'

export const completionBodySchema = bodyShape
  .refine((body) => !(body.echo && isTokens(body)), {
    path: ['echo'],
    message: 'does not go with a prompt of token ids',
  })
  .refine((body) => !(typeof body.suffix === 'string' && isTokens(body)), {
    path: ['suffix'],
    message: 'does not go with a prompt of token ids',
  })
  .refine((body) => !body.echo || typeof body.logprobs !== 'number', {
    path: ['logprobs'],
    message: 'of the prompt are not computed, so they do not go with echo',
  })
  .refine((body) => (body.min_tokens ?? 0) <= Math.min(completionTokensOf(body), MAX_TOKENS_MAX), {
    path: ['min_tokens'],
    message: 'exceeds the most tokens the answer may have',
  })

export type CompletionBody = z.infer<typeof completionBodySchema>
