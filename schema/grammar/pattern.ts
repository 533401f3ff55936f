// A string's `pattern` (ECMAScript, as JSON Schema asks) as a grammar piece. What a grammar cannot do is refused by name:
// assertions inside the pattern, back references, classes that part the characters beyond ASCII.
import { withoutChoices } from './automaton.ts'
import { type CharSet, charOf, chars, complement, union } from './char_set.ts'
import { anyChars, type Quoting } from './json_text.ts'
import { alt, EMPTY, type Piece, type Rules, seq, star } from './rules.ts'

const COUNT_MAX = 1000
const DEPTH_MAX = 100

const DIGIT: CharSet = [[48, 57]]
const WORD = union(
  DIGIT,
  [
    [65, 90],
    [97, 122],
  ],
  chars('_'),
)
const SPACE = union([[9, 13]], chars(' \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff'), [[0x2000, 0x200a]])
const CLASSES: Readonly<Record<string, CharSet>> = {
  ...{ d: DIGIT, w: WORD, s: SPACE },
  ...{ D: complement(DIGIT), W: complement(WORD), S: complement(SPACE) },
}
const CONTROLS: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', f: '\f', v: '\v', '0': '\0' }
const NOT_LINE_END = complement(chars('\n\r\u2028\u2029'))

class Refused extends Error {}

interface Branch {
  readonly piece: Piece
  readonly fromStart: boolean
  readonly toEnd: boolean
}

/** One pass over the pattern; every method leaves `#at` behind what it read. */
class PatternReader {
  readonly #source: string
  readonly #quoting: Quoting
  readonly #rules: Rules
  /** Of the sets met so far. */
  readonly #pieces = new Map<string, Piece>()
  #at = 0
  #depth = 0

  constructor(source: string, quoting: Quoting, rules: Rules) {
    this.#source = source
    this.#quoting = quoting
    this.#rules = rules
  }

  whole(): Piece {
    const branches = [this.#branch()]
    while (this.#eat('|')) branches.push(this.#branch())
    if (this.#at < this.#source.length) throw new Refused(`"${this.#source[this.#at]}" closes nothing`)
    const any = anyChars(this.#quoting)
    const piece = alt(
      ...branches.map(({ piece, fromStart, toEnd }) =>
        seq(...(fromStart ? [] : [any]), piece, ...(toEnd ? [] : [any])),
      ),
    )
    return withoutChoices(piece, this.#rules)
  }

  #eat(what: string): boolean {
    if (!this.#source.startsWith(what, this.#at)) return false
    this.#at += what.length
    return true
  }

  #branch(): Branch {
    const fromStart = this.#depth === 0 && this.#eat('^')
    const items: Piece[] = []
    let toEnd = false
    while (this.#at < this.#source.length && !'|)'.includes(this.#source[this.#at] ?? '')) {
      if (this.#depth === 0 && this.#eat('$')) {
        toEnd = true
        if (this.#at < this.#source.length && this.#source[this.#at] !== '|') throw new Refused('"$" before the end')
        break
      }
      items.push(this.#repeated(this.#atom()))
    }
    return { piece: items.length === 0 ? EMPTY : seq(...items), fromStart, toEnd }
  }

  #repeated(piece: Piece): Piece {
    let least = 1
    let most = 1
    const counts = /\{(\d+)(,?)(\d*)\}/y
    counts.lastIndex = this.#at
    const counted = counts.exec(this.#source)
    if (this.#eat('*')) [least, most] = [0, Number.POSITIVE_INFINITY]
    else if (this.#eat('+')) most = Number.POSITIVE_INFINITY
    else if (this.#eat('?')) least = 0
    else if (counted) {
      this.#at += counted[0].length
      least = Number(counted[1])
      most = counted[2] === '' ? least : counted[3] === '' ? Number.POSITIVE_INFINITY : Number(counted[3])
      if (least > COUNT_MAX || (most > COUNT_MAX && most !== Number.POSITIVE_INFINITY) || most < least)
        throw new Refused(`the count ${counted[0]}`)
    } else return piece
    this.#eat('?')
    if (most === Number.POSITIVE_INFINITY && least === 0) return star(piece)
    return this.#rules.times(
      this.#rules.add(() => piece),
      least,
      most,
    )
  }

  #atom(): Piece {
    if (this.#eat('(')) return this.#group()
    if (this.#eat('[')) return this.#char(this.#class())
    if (this.#eat('.')) return this.#char(NOT_LINE_END)
    if (this.#eat('\\')) return this.#char(this.#escape(false))
    const char = String.fromCodePoint(this.#source.codePointAt(this.#at) ?? 0)
    if ('^$*+?{}]'.includes(char)) throw new Refused(`"${char}" in that place`)
    this.#at += char.length
    return this.#char(chars(char))
  }

  #group(): Piece {
    if (this.#eat('?')) {
      const named = /<[A-Za-z_$][\w$]*>/y
      named.lastIndex = this.#at
      const name = named.exec(this.#source)
      if (name) this.#at += name[0].length
      else if (!this.#eat(':')) throw new Refused('look-ahead, look-behind or flags')
    }
    if (++this.#depth > DEPTH_MAX) throw new Refused(`groups over ${DEPTH_MAX} deep`)
    const ways = [this.#branch().piece]
    while (this.#eat('|')) ways.push(this.#branch().piece)
    this.#depth--
    if (!this.#eat(')')) throw new Refused('a group that is not closed')
    return withoutChoices(alt(...ways), this.#rules)
  }

  #class(): CharSet {
    const not = this.#eat('^')
    const sets: CharSet[] = []
    while (!this.#eat(']')) {
      const from = this.#member()
      const isRange =
        this.#source[this.#at] === '-' && this.#source[this.#at + 1] !== ']' && this.#at + 1 < this.#source.length
      if (!isRange) {
        sets.push(from)
        continue
      }
      this.#at++
      const to = this.#member()
      const [low, high] = [from[0]?.[0] ?? 0, to[0]?.[0] ?? 0]
      const single = [from, to].every((side) => side.length === 1 && side[0]?.[0] === side[0]?.[1])
      if (!single || high < low) throw new Refused('a range between classes')
      sets.push([[low, high]])
    }
    const set = union(...sets)
    return not ? complement(set) : set
  }

  #member(): CharSet {
    if (this.#at >= this.#source.length) throw new Refused('a class that is not closed')
    if (this.#eat('\\')) return this.#escape(true)
    const char = String.fromCodePoint(this.#source.codePointAt(this.#at) ?? 0)
    this.#at += char.length
    return chars(char)
  }

  #escape(inClass: boolean): CharSet {
    const code = /x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}/y
    code.lastIndex = this.#at
    const coded = code.exec(this.#source)
    if (coded) {
      this.#at += coded[0].length
      const point = Number.parseInt(coded[1] ?? coded[2] ?? coded[3] ?? '0', 16)
      if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) throw new Refused(`\\${coded[0]}`)
      return [[point, point]]
    }
    const char = String.fromCodePoint(this.#source.codePointAt(this.#at) ?? 0)
    this.#at += char.length
    const known = CLASSES[char] ?? (CONTROLS[char] && chars(CONTROLS[char]))
    if (known) return known
    if (inClass && char === 'b') return chars('\b')
    if (/[A-Za-z0-9]/.test(char)) throw new Refused(`\\${char}`)
    return chars(char)
  }

  #char(set: CharSet): Piece {
    const key = set.join()
    const known = this.#pieces.get(key)
    if (known) return known
    const piece = charOf(set, this.#quoting)
    if (piece === 'none') throw new Refused('a class that no string can hold')
    if (piece === 'beyond') throw new Refused('a class that takes some of the characters beyond ASCII and not others')
    this.#pieces.set(key, piece)
    return piece
  }
}

/** Body of a string, quotes not included. `refused`: the construct that has no grammar. */
export const patternPiece = (
  source: string,
  quoting: Quoting,
  rules: Rules,
): { readonly piece: Piece } | { readonly refused: string } => {
  rules.readPattern(source)
  try {
    new RegExp(source, 'u')
    return { piece: new PatternReader(source, quoting, rules).whole() }
  } catch (error) {
    if (error instanceof Refused) return { refused: error.message }
    if (error instanceof SyntaxError) return { refused: 'syntax that regular expressions of JavaScript do not have' }
    throw error
  }
}
