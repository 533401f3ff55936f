// What a node refuses before it works: requests for another model, dialect or format, prompts too long, what the engine declines.
import type { ChatFormat } from '../schema/chat/chat_format.ts'
import { rawParser } from '../schema/chat/tagged_parser.ts'
import type { Dialect } from '../schema/dialects/dialect.ts'
import { dialectByName } from '../schema/dialects/index.ts'
import { fingerprintOf } from '../schema/dialects/openai_chat_format.ts'
import { type ApiError, apiError, fail, ok, type Result } from '../schema/errors.ts'
import { promptsOf, type RunPrompt } from '../schema/prompts.ts'
import type { Run, RunRequest } from '../schema/wire.ts'
import { EngineError } from './engine/engine.ts'
import type { Workshop } from './generate.ts'
import type { EncodedPrompt } from './tokenizer.ts'

export interface Prepared {
  readonly dialect: Dialect
  /** Takes the answer's text apart. */
  readonly format: Pick<ChatFormat, 'parser'>
  /** The run as its answer tells of it. */
  readonly run: Run
}

/** In OpenAI's words and in Anthropic's: clients know by them that they have to shorten a conversation. */
export const tooLong = (context: number, prompt: string): ApiError =>
  apiError('context_length_exceeded', {
    message: `This model's maximum context length is ${context} tokens, one of them for the answer; prompt is too long: ${prompt} tokens > ${context - 1} maximum.`,
  })

export const refusalOf = (error: unknown, promptTokens: number, context: number): ApiError => {
  if (!(error instanceof EngineError)) throw error
  if (error.code === 'context_too_long') return tooLong(context, String(promptTokens))
  if (error.code === 'bad_argument') return apiError('invalid_request', { message: error.message })
  return apiError('internal_error', { internal: error.message })
}

/** One prompt of a run, text or token ids. */
export const encoded = async (
  { prompt, promptTokens: ids }: RunPrompt,
  { encode, textBytes }: Workshop['tokenizer'],
  tenant: string,
): Promise<EncodedPrompt> =>
  ids ? { ids: Int32Array.from(ids), bytes: ids.map((id) => textBytes[id]?.length ?? 0) } : encode(prompt, tenant)

const badParameter = (param: string, message: string) =>
  fail('invalid_parameter', { message: `${param}: ${message}.`, param })

/** Parameters that only this model's vocabulary can judge. */
const vocabularyFault = (run: Run, { textBytes, specialIds, vocabSize }: Workshop['tokenizer']) => {
  const biased = Object.keys(run.logitBias ?? {}).find((id) => Number(id) >= vocabSize)
  if (biased !== undefined) return badParameter('logit_bias', `${biased} is no token of this model`)
  const isForeign = (id: number): boolean => id >= vocabSize || textBytes[id]?.length === 0
  const foreign = promptsOf(run)
    .map(({ promptTokens }) => promptTokens?.find(isForeign))
    .find((id) => id !== undefined)
  if (foreign !== undefined) return badParameter('prompt', `${foreign} is no token of this model`)
  if (!run.needs) return undefined
  const { tokens, param } = run.needs
  const missing = tokens.find((token) => !specialIds.has(token))
  return missing === undefined ? undefined : badParameter(param, `this model has no token ${missing} for it`)
}

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** What decides an answer beside prompt and seed: the model and how this node computes it. */
const fingerprintAt = (run: Run, { engine: { info } }: Workshop): string =>
  fingerprintOf(run.model, run.chatFormat, info.backend, info.isa, ...[info.parameters, info.weightBytes].map(String))

const parserOf = (run: Run, { chatFormat, engine, tokenizer }: Workshop): Pick<ChatFormat, 'parser'> => {
  const ends = engine.info.eosTokenIds.map((id) => decode(tokenizer.textBytes[id] ?? new Uint8Array()))
  const parser = run.raw ? rawParser : chatFormat.parser
  return { parser: (options) => parser({ ...options, ends: ends.filter((end) => end !== '') }) }
}

/** What the edge knew of this node is no longer so, or not yet: no fault of the client's, and another node may take the run. */
export const notHere = (what: string) => fail('no_node', { message: `The node asked does not serve ${what}.` })

/** Everything that can be refused before the prompt is tokenized. */
export const prepare = ({ run }: RunRequest, shop: Workshop): Result<Prepared> => {
  if (run.model !== shop.model) return notHere(`the model ${run.model}`)
  const dialect = dialectByName(run.dialect)
  if (!dialect) return notHere(`the dialect ${run.dialect}`)
  if (run.chatFormat !== shop.chatFormat.name) return notHere(`the chat format ${run.chatFormat}`)
  const prompts = promptsOf(run)
  if (prompts.some(({ prompt, promptTokens }) => prompt === '' && !promptTokens))
    return fail('invalid_request', { message: 'The prompt is empty.' })
  const { contextLength } = shop.engine.info
  const leastOf = ({ prompt, promptTokens }: RunPrompt): number =>
    promptTokens?.length ?? Math.ceil(prompt.length / shop.tokenizer.longestTokenBytes)
  const least = Math.max(...prompts.map(leastOf))
  if (least + 1 > contextLength) return { ok: false, error: tooLong(contextLength, `at least ${least}`) }
  const fault = vocabularyFault(run, shop.tokenizer)
  if (fault) return fault
  return ok({ dialect, format: parserOf(run, shop), run: { ...run, fingerprint: fingerprintAt(run, shop) } })
}
