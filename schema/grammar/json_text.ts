// JSON values of no particular schema, as grammar pieces. Everything is bounded that a model could run on with for ever:
// white space, digits, exponents.
import { alt, copies, EMPTY, noneOf, oneOf, optional, type Piece, type Rules, seq, star, text } from './rules.ts'

/** How a string is written: in JSON, quoted and escaped, or raw between tags, where control characters end it. */
export type Quoting = 'json' | 'raw'

const CONTROLS = '\u0000-\u001f'
/** Raw text keeps tabs and newlines. */
const RAW_CONTROLS = '\u0000-\u0008\u000b-\u001f'
const DIGITS_MAX = 18
const EXPONENT_DIGITS_MAX = 2

const plain = noneOf(`${CONTROLS}"\\`)
/** Surrogates are left out: one escape is one character. */
const unicode = seq(
  text('u'),
  alt(
    seq(oneOf('0-9a-cA-Ce-fE-F'), copies(oneOf('0-9a-fA-F'), 3)),
    seq(oneOf('dD'), oneOf('0-7'), copies(oneOf('0-9a-fA-F'), 2)),
  ),
)
const escaped = seq(text('\\'), alt(oneOf('"\\/bfnrt'), unicode))

/** One character of a string. */
export const charPiece = (quoting: Quoting): Piece => (quoting === 'raw' ? noneOf(RAW_CONTROLS) : alt(plain, escaped))

export const quoted = (quoting: Quoting, body: Piece): Piece =>
  quoting === 'raw' ? body : seq(text('"'), body, text('"'))

/** Any characters; plain stretches are loops of their own, which the library's masks are far faster for. */
export const anyChars = (quoting: Quoting): Piece =>
  quoting === 'raw' ? star(noneOf(RAW_CONTROLS)) : seq(star(plain), star(seq(escaped, star(plain))))

export const anyString = (rules: Rules, quoting: Quoting): Piece =>
  rules.shared(`string ${quoting}`, () => quoted(quoting, anyChars(quoting)))

/** Of `least` to `most` characters. */
export const countedString = (rules: Rules, quoting: Quoting, least: number, most: number): Piece => {
  const char = rules.shared(`char ${quoting}`, () => charPiece(quoting))
  if (most === Number.POSITIVE_INFINITY) return quoted(quoting, seq(rules.times(char, least, least), anyChars(quoting)))
  return quoted(quoting, rules.times(char, least, most))
}

export const digits = (least: number, most = DIGITS_MAX): Piece => copies(oneOf('0-9'), least, most)

export const anyInteger = (rules: Rules): Piece =>
  rules.shared('integer', () => alt(text('0'), seq(optional(text('-')), oneOf('1-9'), digits(0, DIGITS_MAX - 1))))

export const anyNumber = (rules: Rules): Piece =>
  rules.shared('number', () =>
    seq(
      optional(text('-')),
      alt(text('0'), seq(oneOf('1-9'), digits(0, DIGITS_MAX - 1))),
      optional(seq(text('.'), digits(1))),
      optional(seq(oneOf('eE'), optional(oneOf('+-')), digits(1, EXPONENT_DIGITS_MAX))),
    ),
  )

/** Nothing, a space, or a new line with its indentation. */
export const space = (rules: Rules): Piece =>
  rules.shared('space', () => optional(alt(text(' '), seq(text('\n'), copies(oneOf(' \t'), 0, 24)))))

/** `open item, item, ... close`, each item preceded by white space. */
export const listOf = (
  rules: Rules,
  brackets: '[]' | '{}',
  item: Piece,
  least = 0,
  most = Number.POSITIVE_INFINITY,
): Piece => {
  const ws = space(rules)
  const [open, close] = [text(brackets.charAt(0)), text(brackets.charAt(1))]
  if (most === 0) return seq(open, ws, close)
  const next = rules.add(() => seq(ws, text(','), ws, item))
  const filled = seq(ws, item, rules.times(next, Math.max(0, least - 1), most - 1))
  return seq(open, least > 0 ? filled : optional(filled), ws, close)
}

export const member = (rules: Rules, key: Piece, value: Piece): Piece => seq(key, text(':'), space(rules), value)

/** Any JSON value, but for strings where `strings` is false. */
export const anyValue = (rules: Rules, strings = true): Piece =>
  strings
    ? rules.shared('value', () => alt(anyValue(rules, false), anyString(rules, 'json')))
    : rules.shared('no string', () =>
        alt(anyObject(rules), anyArray(rules), anyNumber(rules), text('true'), text('false'), text('null')),
      )

export const anyArray = (rules: Rules): Piece => rules.shared('array', () => listOf(rules, '[]', anyValue(rules)))

export const anyObject = (rules: Rules): Piece =>
  rules.shared('object', () => listOf(rules, '{}', member(rules, anyString(rules, 'json'), anyValue(rules))))

const asciiWithout = (but: string): string =>
  Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i))
    .filter((char) => !but.includes(char))
    .join('')

const byChar = (names: readonly string[]): Map<string, string[]> => {
  const groups = new Map<string, string[]>()
  for (const name of names) {
    const [first] = name
    if (first === undefined) continue
    const group = groups.get(first) ?? []
    group.push(name.slice(first.length))
    groups.set(first, group)
  }
  return groups
}

const ASCII = /^[\u0020-\u007e]*$/

/** A quoted key that is none of `taken`; nothing in it is escaped, so that no other spelling slips through. */
export const otherKey = (rules: Rules, taken: readonly string[]): Piece => {
  // The library's classes cannot leave out a character beyond ASCII.
  const isAscii = taken.every((name) => ASCII.test(name))
  const char = (but: string): Piece => (isAscii ? noneOf(`${CONTROLS}"\\${but}`) : oneOf(asciiWithout(`"\\${but}`)))
  const at = (rest: readonly string[]): Piece => {
    const groups = byChar(rest.filter((name) => /^[\u0020-\u007e]/.test(name)))
    const ways: Piece[] = [seq(char([...groups.keys()].join('')), star(char('')))]
    if (!rest.includes('')) ways.push(EMPTY)
    for (const [first, tails] of groups) if (!'"\\'.includes(first)) ways.push(seq(text(first), at(tails)))
    return rules.add(() => alt(...ways))
  }
  return seq(text('"'), at(taken), text('"'))
}
