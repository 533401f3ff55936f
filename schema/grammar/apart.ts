// Alternatives that begin with the same byte, put into rules of their own. The grammar library makes one automaton of each rule's
// alternatives, joining what begins alike and what ends alike in the same pass; where both meet it takes texts that no alternative
// has (of `ya> | xb> | xa>` also `yb>`, of 😁😁🚀 and 😀 any number of 😁). Rules that rules refer to it leaves alone.
import type { Piece } from './rules.ts'

/** A first byte, or the name of a rule that stays one. */
type Start = number | string

const leadByte = (char: string): number => {
  const code = char.codePointAt(0) ?? 0
  if (code < 0x80) return code
  if (code < 0x800) return 0xc0 | (code >> 6)
  return code < 0x10000 ? 0xe0 | (code >> 12) : 0xf0 | (code >> 18)
}

const BEYOND_ASCII = Array.from({ length: 0xf5 - 0xc2 }, (_, i) => 0xc2 + i)

const bytesOf = ({ not, ranges }: Extract<Piece, { kind: 'class' }>): number[] => {
  const isIn = (code: number): boolean => ranges.some(([from, to]) => from <= code && code <= to)
  const ascii = Array.from({ length: 128 }, (_, code) => code).filter((code) => isIn(code) !== not)
  return not ? [...ascii, ...BEYOND_ASCII] : ascii
}

/** The library writes out a rule that an alternative begins with, where that refers to none itself. */
export const hasRule = (piece: Piece): boolean => {
  switch (piece.kind) {
    case 'rule':
      return true
    case 'seq':
    case 'alt':
      return piece.items.some(hasRule)
    case 'repeat':
      return hasRule(piece.of)
    default:
      return false
  }
}

const flat = (items: readonly Piece[]): Piece[] =>
  items.flatMap((item) => (item.kind === 'alt' ? flat(item.items) : [item]))

/** Deals out alternatives; one for each grammar. */
export class Apart {
  readonly #bodies: ReadonlyMap<string, Piece>
  readonly #wall: (ways: Piece) => Piece
  /** Of rules whose bodies are known. */
  readonly #starts = new Map<string, readonly Start[]>()

  /** `wall` makes a rule that stays one. */
  constructor(bodies: ReadonlyMap<string, Piece>, wall: (ways: Piece) => Piece) {
    this.#bodies = bodies
    this.#wall = wall
  }

  /**
   * `piece` with no two alternatives side by side that begin alike: the first of each beginning stays where it is, the second ones
   * become a rule together, and so on.
   */
  piece(piece: Piece): Piece {
    switch (piece.kind) {
      case 'seq':
        return { kind: 'seq', items: piece.items.map((item) => this.piece(item)) }
      case 'repeat':
        return { ...piece, of: this.piece(piece.of) }
      case 'alt':
        return this.#dealt(flat(piece.items))
      default:
        return piece
    }
  }

  #dealt(ways: readonly Piece[]): Piece {
    const taken = new Map<Start, number>()
    const [first = [], ...others] = ways.reduce<Piece[][]>((groups, way) => {
      const starts = this.#startsOf(way)
      const at = starts.reduce<number>((most, start) => Math.max(most, taken.get(start) ?? 0), 0)
      for (const start of starts) taken.set(start, at + 1)
      groups[at] ??= []
      groups[at].push(this.piece(way))
      return groups
    }, [])
    return { kind: 'alt', items: [...first, ...others.map((items) => this.#wall({ kind: 'alt', items }))] }
  }

  /** All that the library's automaton of an alternative may begin with. */
  #startsOf(piece: Piece): readonly Start[] {
    switch (piece.kind) {
      case 'text':
        return piece.text === '' ? [] : [leadByte(piece.text)]
      case 'class':
        return bytesOf(piece)
      case 'alt':
        return [...new Set(piece.items.flatMap((item) => this.#startsOf(item)))]
      case 'repeat':
        return this.#startsOf(piece.of)
      case 'seq': {
        const stop = piece.items.findIndex((item) => item.kind !== 'repeat' || item.least > 0)
        const open = stop < 0 ? piece.items : piece.items.slice(0, stop + 1)
        return open.flatMap((item) => this.#startsOf(item))
      }
      case 'rule':
        return this.#startsOfRule(piece.name)
    }
  }

  #startsOfRule(name: string): readonly Start[] {
    const known = this.#starts.get(name)
    if (known) return known
    const body = this.#bodies.get(name)
    // One that is not whole yet refers to others.
    if (!body) return [name]
    const starts = hasRule(body) ? [name] : [name, ...this.#startsOf(body)]
    this.#starts.set(name, starts)
    return starts
  }
}
