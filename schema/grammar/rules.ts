// A grammar as data, and its EBNF text as the grammar library reads it. The library's classes hold ASCII only, and its own
// counted repetitions are slow to compile, so both are written here in forms that it does well.

import { GRAMMAR_CHARS_MAX } from '../limits.ts'
import { Apart, hasRule } from './apart.ts'

export type Piece =
  | { readonly kind: 'text'; readonly text: string }
  /** One character out of ASCII `ranges`; with `not`, any other one, all characters beyond ASCII included. */
  | { readonly kind: 'class'; readonly not: boolean; readonly ranges: readonly Range[] }
  | { readonly kind: 'seq'; readonly items: readonly Piece[] }
  | { readonly kind: 'alt'; readonly items: readonly Piece[] }
  | { readonly kind: 'repeat'; readonly of: Piece; readonly least: number; readonly most: number }
  | { readonly kind: 'rule'; readonly name: string }

/** First and last code point. */
export type Range = readonly [number, number]

export const text = (value: string): Piece => ({ kind: 'text', text: value })
export const EMPTY = text('')
export const seq = (...items: Piece[]): Piece => {
  const real = items.flatMap((item) => (item.kind === 'seq' ? item.items : item === EMPTY ? [] : [item]))
  // The library takes `[a]*[a]` for `[a]*`; the other way round it is right.
  for (const [i, item] of real.entries()) {
    const next = real[i + 1]
    if (item.kind !== 'repeat' || item.of.kind !== 'class' || next?.kind !== 'class') continue
    if (written(item.of) === written(next)) real.splice(i, 2, next, item)
  }
  if (real.length === 0) return EMPTY
  return real.length === 1 && real[0] ? real[0] : { kind: 'seq', items: real }
}
export const alt = (...items: Piece[]): Piece => (items.length === 1 && items[0] ? items[0] : { kind: 'alt', items })
export const star = (of: Piece): Piece => ({ kind: 'repeat', of, least: 0, most: Number.POSITIVE_INFINITY })
export const optional = (of: Piece): Piece => ({ kind: 'repeat', of, least: 0, most: 1 })
/** Few and small things only: the library writes every copy out. `Rules.times` is for the rest. */
export const copies = (of: Piece, least: number, most = least): Piece => ({ kind: 'repeat', of, least, most })

/** Characters of `spec`, where `a-z` is a range; a `-` between two that rise not is itself. */
const rangesOf = (spec: string): Range[] => {
  const found: Range[] = []
  const codes = [...spec].map((char) => char.codePointAt(0) ?? 0)
  for (let i = 0; i < codes.length; i++) {
    const from = codes[i] ?? 0
    const to = codes[i + 2]
    const isRange = codes[i + 1] === 45 && to !== undefined
    found.push([from, isRange ? to : from])
    if (isRange) i += 2
  }
  return found
}

export const oneOf = (spec: string): Piece => ({ kind: 'class', not: false, ranges: rangesOf(spec) })
export const noneOf = (spec: string): Piece => ({ kind: 'class', not: true, ranges: rangesOf(spec) })

/** Of a fixed length: the library reads as many digits behind `\x` as there are. */
const hex = (code: number): string => `\\u${code.toString(16).padStart(4, '0')}`

const inText = (char: string): string => {
  if (char === '"' || char === '\\') return `\\${char}`
  return char < ' ' || char === '\u007f' ? hex(char.charCodeAt(0)) : char
}
const literal = (value: string): string => `"${[...value].map(inText).join('')}"`

const isWord = (code: number): boolean => /[0-9A-Za-z]/.test(String.fromCharCode(code))
const inClass = (code: number): string => (isWord(code) ? String.fromCharCode(code) : hex(code))

const classText = ({ not, ranges }: Extract<Piece, { kind: 'class' }>): string =>
  `[${not ? '^' : ''}${ranges.map(([from, to]) => (from === to ? inClass(from) : `${inClass(from)}-${inClass(to)}`)).join('')}]`

const suffix = (least: number, most: number): string => {
  if (most === Number.POSITIVE_INFINITY) return least === 0 ? '*' : least === 1 ? '+' : `{${least},}`
  if (least === 0 && most === 1) return '?'
  return least === most ? `{${least}}` : `{${least},${most}}`
}

const isAtom = (piece: Piece): boolean => piece.kind === 'text' || piece.kind === 'class' || piece.kind === 'rule'

const written = (piece: Piece): string => {
  switch (piece.kind) {
    case 'text':
      return literal(piece.text)
    case 'class':
      return classText(piece)
    case 'rule':
      return piece.name
    case 'seq':
      return piece.items.map((item) => (item.kind === 'alt' ? `(${written(item)})` : written(item))).join(' ')
    case 'alt':
      return piece.items.map(written).join(' | ')
    case 'repeat': {
      if (piece.most === 0) return '""'
      const of = written(piece.of)
      return `${isAtom(piece.of) ? of : `(${of})`}${suffix(piece.least, piece.most)}`
    }
  }
}

/** Whether `piece` has a text at all, and whether it has the empty one, given the rules known to be so. */
const holds = (piece: Piece, rules: ReadonlySet<string>, empty: boolean): boolean => {
  switch (piece.kind) {
    case 'text':
      return !empty || piece.text === ''
    case 'class':
      return !empty
    case 'rule':
      return rules.has(piece.name)
    case 'seq':
      return piece.items.every((item) => holds(item, rules, empty))
    case 'alt':
      return piece.items.some((item) => holds(item, rules, empty))
    case 'repeat':
      return piece.least === 0 || holds(piece.of, rules, empty)
  }
}

/** Rules that a text of `piece` can begin with. */
const leading = (piece: Piece, nullable: ReadonlySet<string>): string[] => {
  switch (piece.kind) {
    case 'rule':
      return [piece.name]
    case 'alt':
      return piece.items.flatMap((item) => leading(item, nullable))
    case 'repeat':
      return piece.most === 0 ? [] : leading(piece.of, nullable)
    case 'seq': {
      const stop = piece.items.findIndex((item) => !holds(item, nullable, true))
      const open = stop < 0 ? piece.items : piece.items.slice(0, stop + 1)
      return open.flatMap((item) => leading(item, nullable))
    }
    default:
      return []
  }
}

const LONG_COUNT = 16
/** What a character of a pattern becomes, at least: `"a" `. */
const PATTERN_CHAR_TEXT = 4
/** Comparisons of ranges and positions of closures (automaton.ts). */
const WORK_MAX = 100_000

/** More text than a grammar may have. */
export class GrammarTooLarge extends Error {}

/** Text that several grammars may have together. */
export class TextBudget {
  #left = 2 * GRAMMAR_CHARS_MAX

  /** Throws GrammarTooLarge. */
  take(chars: number): void {
    this.#left -= chars
    if (this.#left < 0) throw new GrammarTooLarge()
  }
}

/** Named rules while a grammar is put together. */
export class Rules {
  readonly #budget: TextBudget
  readonly #bodies = new Map<string, Piece>()
  /** The bodies as they are written, in order. */
  readonly #lines: string[] = []
  readonly #shared = new Map<string, Piece>()
  readonly #longCounts = new Set<string>()
  readonly #apart = new Apart(this.#bodies, (ways) => this.#wall(ways))
  #next = 0
  #walls = 0
  #spent = 0
  #chars = 0
  #patternChars = 0

  constructor(budget = new TextBudget()) {
    this.#budget = budget
  }

  /** Counts a pattern before it is read: none of it is written until all of it is read. Throws GrammarTooLarge. */
  readPattern(source: string): void {
    this.#patternChars += source.length * PATTERN_CHAR_TEXT
    if (this.#patternChars > GRAMMAR_CHARS_MAX) throw new GrammarTooLarge()
  }

  /** Counts text while the grammar is made: a schema of megabytes ends early. Throws GrammarTooLarge. */
  #set(name: string, body: Piece): void {
    this.#line(name, this.#apart.piece(body))
    this.#bodies.set(name, body)
  }

  #line(name: string, body: Piece): void {
    const line = `${name} ::= ${written(body)}`
    this.#chars += line.length + 1
    if (this.#chars > GRAMMAR_CHARS_MAX) throw new GrammarTooLarge()
    this.#budget.take(line.length + 1)
    this.#lines.push(line)
  }

  /** A rule of `way` that the library keeps one: it, or one around it, refers to a rule. */
  #wall(way: Piece): Piece {
    const name = `w${this.#walls++}`
    this.#line(name, way)
    const wall: Piece = { kind: 'rule', name }
    return hasRule(way) ? wall : this.#wall(wall)
  }

  get bodies(): ReadonlyMap<string, Piece> {
    return this.#bodies
  }

  /** Counts work that a whole grammar may not have much of; false once it is too much. */
  spend(amount: number): boolean {
    this.#spent += amount
    return this.#spent <= WORK_MAX
  }

  /** Rules that say in little text what would be long without them. */
  isLongCount(name: string): boolean {
    return this.#longCounts.has(name)
  }

  /** A rule of a new name; `make` may refer to it. */
  add(make: (self: Piece) => Piece): Piece {
    const name = `r${this.#next++}`
    const self: Piece = { kind: 'rule', name }
    this.#set(name, make(self))
    return self
  }

  /** The rule known as `key`, made at first use; `make` may ask for it again. */
  shared(key: string, make: () => Piece): Piece {
    const known = this.#shared.get(key)
    if (known) return known
    const name = `r${this.#next++}`
    const self: Piece = { kind: 'rule', name }
    this.#shared.set(key, self)
    this.#set(name, make())
    return self
  }

  /** `of` from `least` to `most` times, in rules whose number grows with the logarithm of the counts. */
  times(of: Piece, least: number, most: number): Piece {
    if (most === Number.POSITIVE_INFINITY) return least === 0 ? star(of) : seq(this.#exactly(of, least), star(of))
    if (most <= 4) return copies(of, least, most)
    const rest = this.#upTo(of, most - least)
    return least === 0 ? rest : seq(this.#exactly(of, least), rest)
  }

  #exactly(of: Piece, count: number): Piece {
    if (count <= 4) return copies(of, count)
    const half = Math.floor(count / 2)
    const twice = this.#counted('exactly', of, half, () => this.#exactly(of, half))
    return count % 2 === 0 ? seq(twice, twice) : seq(twice, twice, of)
  }

  /** Either a power of two of them and some of what is then left, or fewer than that power: one way for each count. */
  #upTo(of: Piece, count: number): Piece {
    if (count <= 1) return copies(of, 0, count)
    const power = 2 ** Math.floor(Math.log2(count))
    const whole = this.#counted('exactly', of, power, () => this.#exactly(of, power))
    const rest = this.#counted('upTo', of, count - power, () => this.#upTo(of, count - power))
    const fewer = this.#counted('upTo', of, power - 1, () => this.#upTo(of, power - 1))
    return alt(seq(whole, rest), fewer)
  }

  #counted(what: string, of: Piece, count: number, make: () => Piece): Piece {
    const rule = this.shared(`${what} ${count} ${written(of)}`, make)
    if (count >= LONG_COUNT && rule.kind === 'rule') this.#longCounts.add(rule.name)
    return rule
  }

  /** Rules that can never end, or that begin with themselves: no text can be written by them. */
  #faulty(): boolean {
    const grow = (empty: boolean): Set<string> => {
      const found = new Set<string>()
      for (let size = -1; size !== found.size; ) {
        size = found.size
        for (const [name, body] of this.#bodies) if (holds(body, found, empty)) found.add(name)
      }
      return found
    }
    if (grow(false).size < this.#bodies.size) return true
    const nullable = grow(true)
    const state = new Map<string, 'open' | 'done'>()
    const loops = (name: string): boolean => {
      if (state.has(name)) return state.get(name) === 'open'
      state.set(name, 'open')
      const body = this.#bodies.get(name)
      const found = body !== undefined && leading(body, nullable).some(loops)
      state.set(name, 'done')
      return found
    }
    return [...this.#bodies.keys()].some(loops)
  }

  /** The grammar's text, or what is wrong with it. Throws GrammarTooLarge. */
  write(root: Piece): { readonly text: string } | { readonly fault: 'endless' | 'large' } {
    const first = `root ::= ${written(this.#apart.piece(root))}`
    const whole = [first, ...this.#lines].join('\n')
    if (whole.length > GRAMMAR_CHARS_MAX) return { fault: 'large' }
    return this.#faulty() ? { fault: 'endless' } : { text: whole }
  }
}
