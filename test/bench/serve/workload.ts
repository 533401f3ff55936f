// What is asked: prompts of a given length that share nothing, a system prompt, or the conversation before them.
import type { Tokenizer } from '../../../gpu-node/tokenizer.ts'
import { type Random, randomOf } from './random.ts'

export const WORKLOADS = ['random', 'shared', 'multi-turn'] as const
export type Workload = (typeof WORKLOADS)[number]

export interface Message {
  readonly role: 'system' | 'user' | 'assistant'
  readonly content: string
}

export interface WorkloadOptions {
  readonly workload: Workload
  /** Tokens of a prompt, about; of `multi-turn` those of a conversation's last. */
  readonly isl: number
  /** Of `shared`: which part of a prompt is a system prompt that others have too. */
  readonly prefixShare: number
  /** How many system prompts there are. */
  readonly prefixes: number
  /** Turns of a conversation. */
  readonly turns: number
  /** Conversations that go on side by side. */
  readonly conversations: number
  readonly seed: number
}

const WORDS = 'the a of to and river stone light under before seven copper morning letter quiet harbour'.split(' ')
const SAMPLE_WORDS = 400

const words = (count: number, random: Random): string =>
  Array.from({ length: count }, () => WORDS[Math.floor(random() * WORDS.length)]).join(' ')

/** Tokens a word of these texts takes, by the tokenizer of the model that is asked. */
export const tokensPerWord = async (tokenizer: Tokenizer): Promise<number> =>
  (await tokenizer.encode(words(SAMPLE_WORDS, randomOf(1)))).ids.length / SAMPLE_WORDS

export interface Requests {
  /** What to ask before anything is measured: every text that requests share, once. */
  readonly warmUp: readonly (readonly Message[])[]
  /** The `i`th request. */
  of(i: number): readonly Message[]
}

/** `perWord`: tokens a word takes. A pure function of its arguments. */
export const requestsOf = (o: WorkloadOptions, perWord: number): Requests => {
  const wordsOf = (tokens: number): number => Math.max(1, Math.round(tokens / perWord))
  const text = (tokens: number, ...path: number[]): string =>
    words(wordsOf(tokens), randomOf(path.reduce((seed, part) => Math.imul(seed, 1_000_003) + part + 1, o.seed)))
  if (o.workload === 'random') {
    const of = (i: number): Message[] => [{ role: 'user', content: text(o.isl, 1, i) }]
    return { warmUp: [of(-1)], of }
  }
  if (o.workload === 'shared') {
    const prefix = (p: number): Message => ({ role: 'system', content: text(o.isl * o.prefixShare, 2, p) })
    const own = (i: number): Message => ({ role: 'user', content: text(o.isl * (1 - o.prefixShare), 3, i) })
    const all = Array.from({ length: o.prefixes }, (_, p) => prefix(p))
    return {
      warmUp: all.map((one, p) => [one, own(-1 - p)]),
      of: (i) => [all[i % o.prefixes] as Message, own(i)],
    }
  }
  // Replies are made up: an open loop cannot wait for those of the model.
  const part = o.isl / (2 * o.turns)
  const turn = (conversation: number, t: number): Message[] => [
    { role: 'user', content: text(part, 4, conversation, t) },
    { role: 'assistant', content: text(part, 5, conversation, t) },
  ]
  const of = (i: number): Message[] => {
    const round = Math.floor(i / o.conversations)
    const conversation = Math.floor(round / o.turns) * o.conversations + (i % o.conversations)
    const last = round % o.turns
    const past = Array.from({ length: last }, (_, t) => turn(conversation, t)).flat()
    return [...past, { role: 'user', content: text(part, 4, conversation, last) }]
  }
  return { warmUp: [[{ role: 'user', content: text(part, 6) }]], of }
}
