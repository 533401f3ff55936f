// What an engine is to the node: token ids in, events out. One implementation a kind of engine (native.ts).

export interface EngineOptions {
  readonly modelDir: string
  /** Bytes of each token id; special tokens are empty. Ids beyond the list are padding and never sampled. */
  readonly tokenBytes: readonly Uint8Array[]
  /** KV pages of 64 tokens; default: what `kvBytes` holds. */
  readonly kvPages?: number
  /** Memory of KV pages, those kept for reuse included; default: sixteen whole contexts, at most 2 GiB. */
  readonly kvBytes?: number
  /** Folder that keeps pages beyond memory and over a restart; default: none. One engine a folder. */
  readonly cacheDir?: string
  /** Bytes of that folder, at most; 0, the default: nothing is kept there. */
  readonly cacheBytes?: number
  /** Cap on the model's own context length, tokens. */
  readonly contextLength?: number
  readonly threads?: number
  /** auto | reference | scalar | avx2 | avx512 | avx2bf16 | avx512bf16 | amxbf16 */
  readonly isa?: string
  /** What KV pages hold: auto | fp8 (latents as E4M3: about half the bytes; needs one of those with bf16). */
  readonly kv?: string
  /**
   * invariant (default): a token's bits are the same prefilled in any chunks, decoded or found in the cache.
   * fastest: expanded keys for long pieces of a prompt where that costs less; last bits then depend on the pieces.
   */
  readonly attention?: 'invariant' | 'fastest'
  /** Attend to every position, as if the checkpoint had no indexer: to compare with. */
  readonly dense?: boolean
  /** Guess a token ahead with the checkpoint's MTP layer, where it has one; default: true. Answers stay the same. */
  readonly speculate?: boolean
  /** Tokens a step, at most, unless more sequences decode; beside them fewer of a prompt, so that most steps take at most 2.5 times as long. */
  readonly stepTokens?: number
  /** Sequences that run at once; default: 256. */
  readonly maxRunning?: number
}

export interface EngineInfo {
  readonly vocabSize: number
  readonly contextLength: number
  readonly pageTokens: number
  readonly kvPages: number
  /** Of one page, all layers. */
  readonly pageBytes: number
  readonly eosTokenIds: readonly number[]
  readonly backend: string
  readonly isa: string
  readonly parameters: number
  readonly weightBytes: number
  /** The checkpoint has an MTP layer and it is in use. */
  readonly speculates: boolean
  /** False: pages of one sequence never serve another; absent: they do. */
  readonly reusesPages?: boolean
}

export interface SequenceSpec {
  readonly tokens: Int32Array
  /** Pages are shared only between sequences of the same salt. */
  readonly cacheSalt: string
  /** Who shares the engine fairly with the others; absent: nobody in particular. */
  readonly account?: string
  /** From -2 to 2, the highest first; time waited lifts, up to the highest there is. Absent: 0. */
  readonly priority?: number | undefined
  /** Ends the sequence with reason `deadline` so many milliseconds after it was submitted, wherever it is. */
  readonly deadlineMs?: number | undefined
  readonly maxTokens: number
  readonly temperature: number
  readonly topP: number
  readonly seed: bigint
  /** The likeliest so many only; absent or 0: all. */
  readonly topK?: number | undefined
  /** Only tokens at least so likely, as a share of the likeliest. */
  readonly minP?: number | undefined
  /** Off the logit of a token for each time it was sampled, and once if it was. */
  readonly frequencyPenalty?: number | undefined
  readonly presencePenalty?: number | undefined
  /** Divides positive logits of tokens in prompt or answer, multiplies the others; absent: 1. */
  readonly repetitionPenalty?: number | undefined
  /** Added to logits, by token id. */
  readonly logitBias?: Readonly<Record<string, number>> | undefined
  /** Before so many tokens neither an end token nor a stop string ends the sequence. */
  readonly minTokens?: number | undefined
  /** End tokens are not sampled. */
  readonly ignoreEos?: boolean | undefined
  /** Log-probabilities are told with each token, and of so many of the likeliest (0 to 20); absent: none. */
  readonly topLogprobs?: number | undefined
  /** The same is told of the prompt's tokens; none of them then comes out of the cache. Needs topLogprobs. */
  readonly promptLogprobs?: boolean | undefined
  /** Byte strings; the sequence ends at the token that completes one. */
  readonly stop: readonly Uint8Array[]
  /** Each token waits for `SequenceHandle.mask`; the other sequences do not. */
  readonly masked?: boolean
}

export interface IdLogprob {
  readonly id: number
  readonly logprob: number
}

/** From the model's own distribution: before penalties, bias, mask and temperature. */
export interface SampledLogprob {
  readonly logprob: number
  /** Likeliest first. */
  readonly top: readonly IdLogprob[]
}

export type EndReason = 'stop_token' | 'stop_string' | 'length' | 'cancelled' | 'deadline' | 'error'

export type EngineEvent =
  | { readonly kind: 'start'; readonly promptTokens: number; readonly cachedTokens: number }
  /** Of prompt tokens, in order, from the second on: the first follows on nothing. All of them come before any `tokens`. */
  | { readonly kind: 'prompt'; readonly logprobs: readonly SampledLogprob[] }
  /** Tokens sampled in one step or more, in order; the one that ends the sequence included. One logprob an id, if asked. */
  | { readonly kind: 'tokens'; readonly ids: readonly number[]; readonly logprobs?: readonly SampledLogprob[] }
  | {
      readonly kind: 'end'
      readonly reason: EndReason
      readonly promptTokens: number
      readonly cachedTokens: number
      /** Prompt tokens really prefilled, once each however often a preempted sequence computed them. */
      readonly computedTokens: number
      readonly sampledTokens: number
      readonly message?: string
    }

export interface SequenceHandle {
  /** Ends the sequence within one step; its end event still comes. */
  cancel(): void
  /**
   * Tokens allowed as the `position`th sampled one, counted from 0: bit i % 32 of word i / 32; no words: all. Needed once
   * for each position of a masked sequence, at any time before or after its logits are there.
   */
  mask(position: number, words: Uint32Array): void
}

export interface EngineStats {
  readonly running: number
  readonly waiting: number
  readonly kvPages: number
  readonly kvPagesUsed: number
  readonly kvPagesCached: number
  readonly steps: number
  /** 1 while there is work that steps should move on: not when all that is left waits for masks or the disk. */
  readonly busy: number
  readonly prefillTokens: number
  readonly decodeTokens: number
  readonly cachedTokens: number
  /** Queries that saw more than index_topk positions, so that selection mattered. */
  readonly sparseQueries: number
  /** Tokens guessed by the MTP layer and checked, and those of them that were right. */
  readonly draftTokens: number
  readonly acceptedTokens: number
  /** Times that a running sequence gave its pages back, and tokens computed again for that. */
  readonly preemptions: number
  readonly recomputedTokens: number
  /** Sequences that began to run, and how long they had waited in all. */
  readonly admitted: number
  readonly queueWaitMicroseconds: number
  /** Sequences that a deadline ended. */
  readonly deadlines: number
  /** Pages of admitted prompts that were found in memory, and those that were read from disk for them. */
  readonly memoryHits: number
  readonly diskHits: number
  /** Cached pages that others took the memory of. */
  readonly evictions: number
  /** On disk now. */
  readonly diskPages: number
  readonly diskBytes: number
  /** Pages that will be written. */
  readonly diskPending: number
  readonly diskReads: number
  readonly diskWrites: number
  readonly diskEvictions: number
  /** Pages that were on disk but not whole; each was a miss. */
  readonly diskCorrupt: number
  /** Writes that the disk refused. */
  readonly diskErrors: number
}

export interface Engine {
  readonly info: EngineInfo
  /**
   * Queues a sequence; `onEvents` gets start, tokens ..., end, all events of a wake-up at once, end exactly once.
   * Throws EngineError context_too_long or bad_argument before any work.
   */
  submit(spec: SequenceSpec, onEvents: (events: readonly EngineEvent[]) => void): SequenceHandle
  stats(): EngineStats
  close(): Promise<void>
}

export type EngineErrorCode =
  | 'checkpoint_invalid'
  | 'unsupported'
  | 'context_too_long'
  | 'bad_argument'
  | 'engine_failed'
  | 'addon_missing'

export class EngineError extends Error {
  readonly code: EngineErrorCode
  constructor(code: EngineErrorCode, message: string) {
    super(message)
    this.code = code
  }
}
