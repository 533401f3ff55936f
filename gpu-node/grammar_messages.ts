// What the node and its grammar threads say to each other.
import type { AnswerGrammar } from '../schema/chat/chat_format.ts'

/** What a grammar thread starts with. */
export interface GrammarVocab {
  /** Bytes of each id's text; empty beyond the tokenizer's own ids. */
  readonly text: readonly Uint8Array[]
  /** Ids whose text is a special string. */
  readonly special: readonly number[]
  readonly eos: readonly number[]
}

export type ToGrammar =
  /** Compiles, replays `ids`, and answers with the mask behind them. */
  | { readonly kind: 'open'; readonly id: number; readonly grammar: AnswerGrammar; readonly ids: readonly number[] }
  | { readonly kind: 'accept'; readonly id: number; readonly ids: readonly number[] }
  | { readonly kind: 'close'; readonly id: number }

export type FromGrammar =
  | { readonly kind: 'mask'; readonly id: number; readonly position: number; readonly words: Uint32Array<ArrayBuffer> }
  /** `isRefused`: the grammar itself cannot be used. */
  | { readonly kind: 'failed'; readonly id: number; readonly isRefused: boolean; readonly message: string }
