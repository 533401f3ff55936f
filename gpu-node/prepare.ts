// What a node refuses before it works: requests for another model, dialect or format, prompts too long, what the engine declines.
import type { ChatFormat } from '../schema/chat/chat_format.ts'
import { chatFormatByName } from '../schema/chat/index.ts'
import type { Dialect } from '../schema/dialects/dialect.ts'
import { dialectByName } from '../schema/dialects/index.ts'
import { type ApiError, apiError, fail, ok, type Result } from '../schema/errors.ts'
import type { RunRequest } from '../schema/wire.ts'
import { EngineError } from './engine/engine.ts'
import type { Workshop } from './generate.ts'

export interface Prepared {
  readonly dialect: Dialect
  readonly format: ChatFormat
}

export const tooLong = (context: number, prompt: string): ApiError =>
  apiError('context_length_exceeded', {
    message: `The model's context is ${context} tokens, one of them for the answer; the prompt has ${prompt}.`,
  })

export const refusalOf = (error: unknown, promptTokens: number, context: number): ApiError => {
  if (!(error instanceof EngineError)) throw error
  if (error.code === 'context_too_long') return tooLong(context, String(promptTokens))
  if (error.code === 'bad_argument') return apiError('invalid_request', { message: error.message })
  return apiError('internal_error', { internal: error.message })
}

/** Everything that can be refused before the prompt is tokenized. */
export const prepare = ({ run }: RunRequest, shop: Workshop): Result<Prepared> => {
  if (run.model !== shop.model) return fail('model_not_found')
  const dialect = dialectByName(run.dialect)
  if (!dialect) return fail('invalid_request', { message: `This node does not know the dialect ${run.dialect}.` })
  const format = chatFormatByName(run.chatFormat)
  if (!format) return fail('invalid_request', { message: `This node does not know the chat format ${run.chatFormat}.` })
  if (run.prompt === '') return fail('invalid_request', { message: 'The prompt is empty.' })
  const { contextLength } = shop.engine.info
  const least = Math.ceil(run.prompt.length / shop.tokenizer.longestTokenBytes)
  if (least + 1 > contextLength) return { ok: false, error: tooLong(contextLength, `at least ${least}`) }
  const foreign = Object.keys(run.logitBias ?? {}).find((id) => Number(id) >= shop.tokenizer.vocabSize)
  if (foreign !== undefined) {
    const message = `logit_bias: ${foreign} is no token of this model.`
    return fail('invalid_parameter', { message, param: 'logit_bias' })
  }
  return ok({ dialect, format })
}
