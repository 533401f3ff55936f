// What every answer parser needs: finding marks in text that arrives in pieces, and cutting it at a stop string. Nothing
// here depends on where the pieces were split.

/** Length of the longest suffix of `text` that is a proper prefix of one of `marks`: it must be held back. */
export const heldLength = (text: string, marks: readonly string[]): number => {
  let held = 0
  for (const mark of marks) {
    for (let n = Math.min(mark.length - 1, text.length); n > held; n--) {
      if (mark.startsWith(text.slice(text.length - n))) {
        held = n
        break
      }
    }
  }
  return held
}

/** The mark that starts first in `text`, the longest where several start there. */
export const firstMark = (text: string, marks: readonly string[]): { at: number; mark: string } | undefined => {
  let best: { at: number; mark: string } | undefined
  for (const mark of marks) {
    const at = text.indexOf(mark)
    if (at < 0) continue
    if (!best || at < best.at || (at === best.at && mark.length > best.mark.length)) best = { at, mark }
  }
  return best
}

/** The stop string that is complete first, and its start. */
const firstStop = (text: string, stops: readonly string[]): { at: number; stop: string } | undefined => {
  let best: { at: number; stop: string } | undefined
  let end = Number.POSITIVE_INFINITY
  for (const stop of stops) {
    const at = text.indexOf(stop)
    if (at < 0) continue
    const stopEnd = at + stop.length
    if (stopEnd < end || (stopEnd === end && at < (best?.at ?? 0))) {
      best = { at, stop }
      end = stopEnd
    }
  }
  return best
}

interface Piece {
  readonly text: string
  readonly special: boolean
}

/**
 * Cuts a stream of text before the stop string that is complete first. As in the engine, special strings take no part in
 * the match: they are neither matched nor do they break one.
 */
export class StopCutter {
  /** The stop string that was seen: nothing comes out any more. */
  matched: string | undefined
  readonly #stops: readonly string[]
  readonly #specials: readonly string[]
  /** A possible start of a special string. */
  #partial = ''
  #pieces: Piece[] = []

  constructor(stops: readonly string[], specials: readonly string[]) {
    this.#stops = stops
    this.#specials = specials
  }

  get stopped(): boolean {
    return this.matched !== undefined
  }

  /** Text that passes uncut: it takes no part in any match. */
  pass(text: string): string {
    return this.end() + text
  }

  push(text: string): string {
    if (this.stopped) return ''
    return this.#stops.length === 0 ? text : this.#cut(text, false)
  }

  /** What was held back and turned out to be no stop string. */
  end(): string {
    return this.stopped || this.#stops.length === 0 ? '' : this.#cut('', true)
  }

  #cut(text: string, final: boolean): string {
    this.#split(this.#partial + text, final)
    const plain = this.#pieces.map((piece) => (piece.special ? '' : piece.text)).join('')
    const found = firstStop(plain, this.#stops)
    this.matched = found?.stop
    return this.#take(found?.at ?? plain.length - (final ? 0 : heldLength(plain, this.#stops)))
  }

  #split(text: string, final: boolean): void {
    let rest = text
    for (let found = firstMark(rest, this.#specials); found; found = firstMark(rest, this.#specials)) {
      this.#pieces.push({ text: rest.slice(0, found.at), special: false }, { text: found.mark, special: true })
      rest = rest.slice(found.at + found.mark.length)
    }
    const held = final ? 0 : heldLength(rest, this.#specials)
    this.#pieces.push({ text: rest.slice(0, rest.length - held), special: false })
    this.#partial = rest.slice(rest.length - held)
  }

  /** Removes and returns the pieces up to `limit` characters of plain text; special strings count for none. */
  #take(limit: number): string {
    let left = limit
    let out = ''
    while (this.#pieces.length > 0) {
      const piece = this.#pieces[0]
      if (!piece || (!piece.special && piece.text.length > left)) break
      out += piece.text
      if (!piece.special) left -= piece.text.length
      this.#pieces.shift()
    }
    const cut = this.#pieces[0]
    if (cut && !cut.special && left > 0) {
      out += cut.text.slice(0, left)
      this.#pieces[0] = { text: cut.text.slice(left), special: false }
    }
    return out
  }
}
