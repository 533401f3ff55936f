// Which tokens a piece of text was made of: tokens wait here until the parser says what their text became.
import type { SampledToken, Source } from '../schema/dialects/dialect.ts'

interface Entry {
  readonly start: number
  readonly end: number
  readonly token: SampledToken
}

export class TokenLog {
  #end = 0
  #waiting: Entry[] = []

  /** The next token, and how many UTF-16 units of text came out with it: none while a character is not whole. */
  add(length: number, token: SampledToken): void {
    this.#waiting.push({ start: this.#end, end: this.#end + length, token })
    this.#end += length
  }

  /** Takes the tokens with text in `source`; those before it that were never taken wrote marks, and are dropped. */
  take([from, to]: Source): SampledToken[] {
    const later = this.#waiting.findIndex((entry) => entry.start >= to)
    const gone = later < 0 ? this.#waiting : this.#waiting.slice(0, later)
    this.#waiting = later < 0 ? [] : this.#waiting.slice(later)
    return gone.filter((entry) => entry.end > from || entry.start >= from).map((entry) => entry.token)
  }
}
