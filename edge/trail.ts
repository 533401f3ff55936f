// The trail of a prompt: two bytes for every 16 characters, each from a keyed hash (HalfSipHash-2-4) of all characters up to there.
// Two prompts of an account have the same trail as far as they are the same, so that a miss of the prefix cache can be explained
// without keeping any text. Without the secret a trail tells nothing but a length.
import { type Turn, turnsOf } from '../schema/chat/turns.ts'
import { isScored } from '../schema/prompts.ts'
import type { Run } from '../schema/wire.ts'
import { derivedOnce } from './auth.ts'

/** UTF-16 code units, as JavaScript and most clients count characters. */
export const TRAIL_STEP = 16
/** Longer prompts are followed this far. */
const TRAIL_CHARACTERS_MAX = 256 * 1024
const TURNS_MAX = 1000

export interface Trail {
  /** Characters of the whole prompt. */
  readonly characters: number
  readonly turns: readonly Turn[]
  /** One for each full step. */
  readonly tags: Uint16Array<ArrayBuffer>
  /** Nothing of it could come from a cache. */
  readonly isScored: boolean
}

const rotl = (x: number, n: number): number => (x << n) | (x >>> (32 - n))

/** HalfSipHash state; `tag` reads the hash so far and goes on. */
class HalfSip {
  #v0: number
  #v1: number
  #v2: number
  #v3: number

  constructor(k0: number, k1: number) {
    this.#v0 = k0
    this.#v1 = k1
    this.#v2 = 0x6c796765 ^ k0
    this.#v3 = 0x74656462 ^ k1
  }

  #rounds(count: number): void {
    let [v0, v1, v2, v3] = [this.#v0, this.#v1, this.#v2, this.#v3]
    for (let i = 0; i < count; i++) {
      v0 = (v0 + v1) | 0
      v1 = rotl(v1, 5) ^ v0
      v0 = rotl(v0, 16)
      v2 = (v2 + v3) | 0
      v3 = rotl(v3, 8) ^ v2
      v0 = (v0 + v3) | 0
      v3 = rotl(v3, 7) ^ v0
      v2 = (v2 + v1) | 0
      v1 = rotl(v1, 13) ^ v2
      v2 = rotl(v2, 16)
    }
    this.#v0 = v0
    this.#v1 = v1
    this.#v2 = v2
    this.#v3 = v3
  }

  word(m: number): void {
    this.#v3 ^= m
    this.#rounds(2)
    this.#v0 ^= m
  }

  tag(): number {
    const [v0, v1, v2, v3] = [this.#v0, this.#v1, this.#v2, this.#v3]
    this.#v2 ^= 0xff
    this.#rounds(4)
    const tag = (this.#v1 ^ this.#v3) & 0xffff
    this.#v0 = v0
    this.#v1 = v1
    this.#v2 = v2
    this.#v3 = v3
    return tag
  }
}

/** Trails of other accounts, models and formats share nothing with this one. */
export const trailOf = (
  secret: string,
  accountId: string,
  run: Pick<Run, 'model' | 'chatFormat' | 'prompt' | 'topLogprobs' | 'echoText' | 'echoTokens'>,
): Trail => {
  const { model, chatFormat, prompt } = run
  const key = derivedOnce(secret, 'trail', accountId, model, chatFormat)
  const hash = new HalfSip(key.readInt32LE(0), key.readInt32LE(4))
  const steps = Math.floor(Math.min(prompt.length, TRAIL_CHARACTERS_MAX) / TRAIL_STEP)
  const tags = new Uint16Array(steps)
  for (let step = 0, at = 0; step < steps; step++) {
    for (const end = at + TRAIL_STEP; at < end; at += 2) {
      hash.word(prompt.charCodeAt(at) | (prompt.charCodeAt(at + 1) << 16))
    }
    tags[step] = hash.tag()
  }
  const turns = turnsOf(chatFormat, prompt).slice(0, TURNS_MAX)
  return { characters: prompt.length, turns, tags, isScored: isScored(run, run) }
}

/** Steps that two trails have in common from their beginning. */
export const commonSteps = (a: Uint16Array, b: Uint16Array): number => {
  const most = Math.min(a.length, b.length)
  let n = 0
  while (n < most && a[n] === b[n]) n++
  return n
}

export interface Place {
  /** Position of the turn in the rendered conversation. */
  readonly message: number
  readonly role: Turn['role']
  /** Characters of the turn before the stretch in which the prompts part. */
  readonly character: number
}

/** The turn that character `at` of the prompt lies in. */
export const placeOf = (turns: readonly Turn[], at: number): Place => {
  const next = turns.findIndex((turn) => turn.at > at)
  const message = Math.max(0, (next < 0 ? turns.length : next) - 1)
  const turn = turns[message] ?? { role: 'user', at: 0 }
  return { message, role: turn.role, character: Math.max(0, at - turn.at) }
}
