// What a dialect is: a client protocol. The edge parses with it, the node formats with it; neither knows its fields.
// To add one: write schema/dialects/<name>.ts, add its line to schema/dialects/index.ts. Paths are part of it.
import type { ChatFormat } from '../chat/chat_format.ts'
import type { ApiError, ErrorCode, Result } from '../errors.ts'
import type { FinishReason, Run } from '../wire.ts'

/** Token usage as every dialect derives it; `hit + miss` is the prompt, `reasoning` is part of `output`. */
export interface Usage {
  readonly hit: number
  readonly miss: number
  readonly output: number
  readonly reasoning: number
}

/** What the client asked about delivery and who it may ask, known before the body is read. */
export interface ParseContext {
  readonly requestId: string
  /** Unix seconds. */
  readonly created: number
  /** Seed to use when the client names none, decimal uint64. */
  readonly seed: string
  /** The body as received: lets JSON inside it (tool schemas) keep the key order and numbers that JSON.parse loses. */
  readonly bodyText?: string
  /** Chat format of the model asked for; absent: the default. */
  readonly format?: ChatFormat
  /** Whether that name stands for thinking, where the client says nothing about it. */
  readonly thinks?: boolean
}

export interface TokenLogprob {
  readonly bytes: Uint8Array
  readonly logprob: number
}

/** A token of the answer, or of a prompt it repeats, and, likeliest first, what else it might have been. */
export interface SampledToken extends TokenLogprob {
  readonly top: readonly TokenLogprob[]
  /** The first of an echoed prompt: it follows on nothing, so it has no log-probability. */
  readonly unscored?: true
}

/** Where a piece of text stood in the token text: from, to, in UTF-16 units. */
export type Source = readonly [number, number]

interface TextPiece {
  readonly text: string
  /** Set by a parser that is asked for it. */
  readonly source?: Source
  /** The tokens of the text, where the client wants to know them. */
  readonly logprobs?: readonly SampledToken[]
}

/** A piece of the answer, after schema/chat's parser split the token text. Tool-call pieces carry id and name first. */
export type Delta =
  | ({ readonly kind: 'reasoning' } & TextPiece)
  | ({ readonly kind: 'content' } & TextPiece)
  | { readonly kind: 'tool_call'; readonly index: number; readonly id: string; readonly name: string }
  | { readonly kind: 'tool_arguments'; readonly index: number; readonly text: string }

/** One of the answers to a run (see prompts.ts), whole. */
export interface Choice {
  readonly deltas: readonly Delta[]
  readonly finish: FinishReason
  /** The stop string that ended it. */
  readonly stop?: string | undefined
}

/** What a quiet stream says where its dialect has no event for that. */
export const KEEP_ALIVE = ': keep-alive\n\n'

/** Turns deltas into the bytes of a streamed answer. Pure: same calls, same bytes. */
export interface StreamFormatter {
  /** First bytes, written when the prompt's usage is known and before the first token. */
  start(usage: Usage): string
  /** Between `start` and `finish`, where there is nothing else to say for a while. */
  alive(): string
  /** Of the choice of that index. */
  deltas(choice: number, deltas: readonly Delta[]): string
  /** Last bytes: the finish reason of each choice, usage where asked, terminator; `stops`: the stop string that ended each. */
  finish(reasons: readonly FinishReason[], usage: Usage, stops?: readonly (string | undefined)[]): string
}

export interface Dialect {
  readonly name: string
  /** POST paths it is served under. */
  readonly paths: readonly string[]
  /** Body (already JSON-parsed) -> Run. Errors: invalid_request, invalid_parameter (naming `param`). */
  parse(body: unknown, context: ParseContext): Result<Run>
  stream(run: Run): StreamFormatter
  /** Body of a whole, non-streamed answer. */
  whole(run: Run, choices: readonly Choice[], usage: Usage): string
  /** Where the vendor's status for an error is another than the table's. */
  status?(code: ErrorCode): number
  /** Body of an error answer before any token. */
  errorBody(error: ApiError): string
  /** Frame appended to a stream that already began; the stream is closed after it. */
  errorFrame(error: ApiError): string
}
