// Sets of code points as sorted ranges, and how a string's character out of such a set is written.
import type { Quoting } from './json_text.ts'
import { alt, type Piece, type Range, text } from './rules.ts'

export type CharSet = readonly Range[]

const LAST = 0x10ffff
const FINITE_MAX = 64

export const union = (...sets: CharSet[]): CharSet => {
  const sorted = sets.flat().sort((a, b) => a[0] - b[0])
  const merged: [number, number][] = []
  for (const [from, to] of sorted) {
    const last = merged.at(-1)
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to)
    else merged.push([from, to])
  }
  return merged
}

export const complement = (set: CharSet): CharSet => {
  const holes: Range[] = []
  let next = 0
  for (const [from, to] of union(set)) {
    if (from > next) holes.push([next, from - 1])
    next = to + 1
  }
  if (next <= LAST) holes.push([next, LAST])
  return holes
}

export const intersection = (a: CharSet, b: CharSet): CharSet => complement(union(complement(a), complement(b)))

export const chars = (members: string): CharSet =>
  union([...members].map((char): Range => [char.codePointAt(0) ?? 0, char.codePointAt(0) ?? 0]))

const size = (set: CharSet): number => set.reduce((sum, [from, to]) => sum + to - from + 1, 0)

const members = (set: CharSet): string[] =>
  set.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, i) => String.fromCodePoint(from + i)))

const ASCII: CharSet = [[0, 127]]
const BEYOND: CharSet = [[128, LAST]]
/** White space and line ends beyond ASCII. */
const RARE: CharSet = chars(
  '\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff',
)

/** Those that a string holds as they are. */
const PLAIN: Readonly<Record<Quoting, CharSet>> = {
  json: complement(union([[0, 31]], chars('"\\'))),
  raw: complement([
    [0, 8],
    [11, 31],
  ]),
}

const escapeOf = (char: string): string => JSON.stringify(char).slice(1, -1)

/** One character of `set`, which may be any beyond ASCII or some listed ones; `undefined` where the library has no class for it. */
const waysOf = (set: CharSet): Piece[] | undefined => {
  const ascii = intersection(set, ASCII)
  const beyond = intersection(set, BEYOND)
  if (size(complement(union(beyond, RARE, ASCII))) === 0)
    return [{ kind: 'class', not: true, ranges: intersection(complement(ascii), ASCII) }]
  if (size(beyond) > FINITE_MAX) return undefined
  if (ascii.length === 0) return members(beyond).map(text)
  // Of `\s` the library mixes up the bytes of U+1680 and U+2000 and takes what is neither: white space is ASCII's then.
  return [{ kind: 'class', not: false, ranges: ascii }, ...members(intersection(beyond, complement(RARE))).map(text)]
}

/** The same as a piece; the set is not empty. */
export const classOf = (set: CharSet): Piece | undefined => {
  const ways = waysOf(set)
  return ways && alt(...ways)
}

/**
 * One character of `set` as a string writes it; 'beyond' where the set parts the characters beyond ASCII in a way that the
 * library's classes cannot: they hold all of those or none, and a few can be listed. White space beyond ASCII passes for
 * any character there.
 */
export const charOf = (set: CharSet, quoting: Quoting): Piece | 'beyond' | 'none' => {
  const ways = waysOf(intersection(set, PLAIN[quoting]))
  if (!ways) return 'beyond'
  if (quoting === 'json')
    ways.push(...members(intersection(set, complement(PLAIN.json))).map((char) => text(escapeOf(char))))
  return ways.length === 0 ? 'none' : alt(...ways)
}
