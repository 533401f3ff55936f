// The dialect of OpenAI's text completions, with DeepSeek's FIM: a prompt that is no conversation goes to the model as it is, behind
// the format's first token. With `suffix` the answer fills the gap between the two.
import { plainText } from '../chat/deepseek_v32.ts'
import { DEFAULT_CHAT_FORMAT } from '../chat/index.ts'
import { ok, type Result } from '../errors.ts'
import type { RunPrompt } from '../prompts.ts'
import type { Run } from '../wire.ts'
import {
  type CompletionBody,
  completionBodySchema,
  completionTokensOf,
  type GivenPrompt,
  promptsIn,
} from './completions_body.ts'
import { completionStream, completionWhole } from './completions_format.ts'
import type { Dialect, ParseContext } from './dialect.ts'
import { badParameter, callerOf, isObject, noObject } from './openai_chat_body.ts'
import { openAiErrorBody } from './openai_chat_format.ts'
import { samplingOf } from './openai_sampling.ts'
import { readShape } from './read_shape.ts'

/** The family's tokens around prefix, gap and suffix. */
const FIM = { begin: '<｜fim▁begin｜>', hole: '<｜fim▁hole｜>', end: '<｜fim▁end｜>' } as const

const promptPart = ({ suffix, echo }: CompletionBody, given: GivenPrompt, bos: string): RunPrompt => {
  if (typeof given !== 'string') return { prompt: '', promptTokens: [...given], ...(echo ? { echoTokens: true } : {}) }
  const text = given.toWellFormed()
  const echoed = echo ? { echoText: text } : {}
  if (typeof suffix === 'string') {
    const gap = `${bos}${FIM.begin}${plainText(given)}${FIM.hole}${plainText(suffix)}${FIM.end}`
    return { prompt: gap, ...echoed }
  }
  return { prompt: text.startsWith(bos) ? text : bos + text, ...echoed }
}

const promptParts = (body: CompletionBody, bos: string): RunPrompt & Pick<Run, 'morePrompts' | 'needs'> => {
  const [first, ...more] = promptsIn(body).map((given) => promptPart(body, given, bos))
  return {
    ...(first ?? { prompt: bos }),
    ...(more.length > 0 ? { morePrompts: more } : {}),
    ...(typeof body.suffix === 'string' ? { needs: { tokens: Object.values(FIM), param: 'suffix' } } : {}),
  }
}

const parse = (body: unknown, context: ParseContext): Result<Run> => {
  if (!isObject(body)) return noObject
  const parsed = readShape(completionBodySchema, body)
  if (!parsed.success) return { ok: false, error: badParameter(parsed.error) }
  const { data } = parsed
  const format = context.format ?? DEFAULT_CHAT_FORMAT
  const stream = data.stream ?? false
  return ok({
    requestId: context.requestId,
    created: context.created,
    model: data.model,
    dialect: completions.name,
    chatFormat: format.name,
    raw: true,
    ...promptParts(data, format.bos),
    thinking: false,
    stream,
    includeUsage: stream && (data.stream_options?.include_usage ?? false),
    maxTokens: completionTokensOf(data),
    ...samplingOf(data, context.seed),
    topLogprobs: data.logprobs ?? undefined,
    ...callerOf(data),
  })
}

export const completions: Dialect = {
  name: 'completions',
  paths: ['/v1/completions', '/completions', '/beta/completions'],
  parse,
  stream: completionStream,
  whole: completionWhole,
  errorBody: openAiErrorBody,
  errorFrame: (error) => `data: ${openAiErrorBody(error)}\n\n`,
}
