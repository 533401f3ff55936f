// Numbers between bounds, as grammar pieces: digit by digit, never by value, so that no rounding has a say.
import { digits } from './json_text.ts'
import { alt, copies, EMPTY, oneOf, optional, type Piece, seq, text } from './rules.ts'

/** A decimal: whole part and fraction without trailing zeros. */
interface Decimal {
  readonly whole: bigint
  readonly fraction: string
}

interface Bound {
  readonly at: Decimal
  readonly open: boolean
}

export interface NumberBounds {
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly exclusiveMaximum?: number
}

const LARGEST = 10n ** 18n - 1n
/** Digits behind those that decide. */
const TAIL = 8

const either = (...ways: (Piece | undefined)[]): Piece | undefined => {
  const real = ways.filter((way) => way !== undefined)
  return real.length === 0 ? undefined : alt(...real)
}

const then = (head: Piece, tail: Piece | undefined): Piece | undefined => tail && seq(head, tail)

const digitsFrom = (from: number, to: number): Piece | undefined => (from > to ? undefined : oneOf(`${from}-${to}`))

const anyTail = digits(0, TAIL)
const zeroTail = copies(text('0'), 0, TAIL)
const positiveTail = seq(zeroTail, oneOf('1-9'), anyTail)

/** Digit strings of one length, at least `low` and at most `high` (undefined leaves that side open), then `tail`. */
interface Strings {
  readonly length: number
  readonly low: string | undefined
  readonly high: string | undefined
  readonly tail: Piece
}

const isOpen = ({ low, high }: Strings): boolean => low === undefined && high === undefined

/** The strings that begin with `digit`, without it. */
const behind = (digit: number, { length, low, high, tail }: Strings): Strings | undefined => {
  if ((low && digit < Number(low[0])) || (high && digit > Number(high[0]))) return undefined
  const [lowRest, highRest] = [low?.slice(1), high?.slice(1)]
  const isLow = low && digit === Number(low[0]) && !/^0*$/.test(lowRest ?? '')
  const isHigh = high && digit === Number(high[0]) && !/^9*$/.test(highRest ?? '')
  return { length: length - 1, low: isLow ? lowRest : undefined, high: isHigh ? highRest : undefined, tail }
}

/** Of tails that were met: they are few, and a tree has them at each of its digits. */
const tailKeys = new WeakMap<Piece, string>()
const tailKey = (tail: Piece): string => {
  const key = tailKeys.get(tail) ?? JSON.stringify(tail)
  tailKeys.set(tail, key)
  return key
}

/** Digits with the same strings behind them, in order. */
const branches = (all: readonly Strings[]): { first: number; last: number; rest: Strings[] }[] => {
  const found: { first: number; last: number; rest: Strings[]; key: string }[] = []
  for (let digit = 0; digit <= 9; digit++) {
    const rest = all.flatMap((strings) => behind(digit, strings) ?? [])
    const key = rest.map(({ length, low, high, tail }) => `${length} ${low} ${high} ${tailKey(tail)}`).join()
    const before = found.at(-1)
    if (before?.key === key && before.last === digit - 1) before.last = digit
    else if (rest.length > 0) found.push({ first: digit, last: digit, rest, key })
  }
  return found
}

/**
 * Any of the strings; no two of them are equal. Written as a tree: what begins alike is never written twice, since the
 * grammar library merges three such alternatives into one that goes on for ever.
 */
const anyOf = (all: readonly Strings[]): Piece | undefined => {
  const ended = all.find(({ length }) => length === 0)
  const longer = all.filter(({ length }) => length > 0)
  const [first] = longer
  if (!first) return ended?.tail
  const lengths = longer.map(({ length }) => length)
  const [least, most] = [Math.min(...lengths), Math.max(...lengths)]
  const alike = longer.every((strings) => isOpen(strings) && strings.tail === first.tail)
  const more =
    alike && most - least + 1 === longer.length
      ? seq(digits(least, most), first.tail)
      : either(...branches(longer).map((branch) => then(oneOf(`${branch.first}-${branch.last}`), anyOf(branch.rest))))
  if (!ended || !more) return more ?? ended?.tail
  return ended.tail === EMPTY ? optional(more) : alt(ended.tail, more)
}

/** Whole numbers from `low` to `high`, neither below zero, as strings. */
const wholes = (low: bigint, high: bigint, tail: Piece): Strings[] => {
  const [lowText, highText] = [String(low), String(high)]
  const found: Strings[] = []
  for (let length = lowText.length; length <= highText.length && low <= high; length++) {
    const least = length === lowText.length ? lowText : `1${'0'.repeat(length - 1)}`
    const most = length === highText.length ? highText : undefined
    found.push({ length, low: least, high: most, tail })
  }
  return found
}

const exactly = (whole: bigint, tail: Piece | undefined): Strings[] => (tail ? wholes(whole, whole, tail) : [])

/** Integers from `low` to `high`; undefined: there is none that is written in so few digits. */
const integers = (low: bigint, high: bigint): Piece | undefined => {
  const below = low < 0n ? anyOf(wholes(high < 0n ? -high : 1n, -low, EMPTY)) : undefined
  return either(
    below && seq(text('-'), below),
    high >= 0n ? anyOf(wholes(low > 0n ? low : 0n, high, EMPTY)) : undefined,
  )
}

/** Fraction digits that make at least (more than, if open) `.limit`. */
const digitsAbove = (limit: string, open: boolean): Piece => {
  if (limit === '') return open ? positiveTail : anyTail
  const digit = Number(limit[0])
  const more = digitsFrom(digit + 1, 9)
  const same = seq(text(String(digit)), digitsAbove(limit.slice(1), open))
  return more ? alt(seq(more, anyTail), same) : same
}

/** Fraction digits, at least one, that make at most (less than, if open) `.limit`. */
const digitsBelow = (limit: string, open: boolean): Piece | undefined => {
  const digit = Number(limit[0] ?? '0')
  const less = digitsFrom(0, digit - 1)
  const rest = limit.length > 1 ? optional(digitsBelow(limit.slice(1), open) ?? EMPTY) : open ? undefined : zeroTail
  return either(less && seq(less, anyTail), then(text(String(digit)), rest))
}

/** Fraction digits between two limits, the first less than the second. */
const digitsBetween = (low: string, lowOpen: boolean, high: string, highOpen: boolean): Piece | undefined => {
  const [a, b] = [Number(low[0] ?? '0'), Number(high[0] ?? '0')]
  if (a === b) {
    const rest = digitsBetween(low.slice(1), lowOpen, high.slice(1), highOpen)
    const canEnd = low.slice(1) === '' && !lowOpen
    return then(text(String(a)), rest && (canEnd ? optional(rest) : rest))
  }
  const middle = digitsFrom(a + 1, b - 1)
  const above = digitsAbove(low.slice(1), lowOpen)
  const below =
    high.length > 1 ? optional(digitsBelow(high.slice(1), highOpen) ?? EMPTY) : highOpen ? undefined : zeroTail
  return either(seq(text(String(a)), above), middle && seq(middle, anyTail), then(text(String(b)), below))
}

const point = (fraction: Piece | undefined): Piece | undefined => fraction && seq(text('.'), fraction)

const fractionAbove = ({ at, open }: Bound): Piece => {
  const written = point(digitsAbove(at.fraction, open)) ?? EMPTY
  return at.fraction === '' && !open ? optional(seq(text('.'), digits(1, TAIL))) : written
}

const fractionBelow = ({ at, open }: Bound): Piece | undefined => {
  if (at.fraction === '') return open ? undefined : optional(seq(text('.'), copies(text('0'), 1, TAIL)))
  const written = point(digitsBelow(at.fraction, open))
  return written ? optional(written) : EMPTY
}

const fractionBetween = (low: Bound, high: Bound): Piece | undefined => {
  const [from, to] = [low.at.fraction, high.at.fraction]
  if (from === to) {
    if (low.open || high.open) return undefined
    return from === '' ? fractionBelow(high) : seq(text(`.${from}`), zeroTail)
  }
  const length = Math.max(from.length, to.length)
  if (from.padEnd(length, '0') > to.padEnd(length, '0')) return undefined
  const written = point(digitsBetween(from, low.open, to, high.open))
  return from === '' && !low.open ? (written ? optional(written) : EMPTY) : written
}

/** Numbers from `low` to `high`, neither below zero. */
const magnitudes = (low: Bound, high: Bound): Piece | undefined => {
  const [from, to] = [low.at.whole, high.at.whole]
  if (from > to) return undefined
  if (from === to) return then(text(String(from)), fractionBetween(low, high))
  const anyFraction = optional(seq(text('.'), digits(1, TAIL)))
  return anyOf([
    ...exactly(from, fractionAbove(low)),
    ...wholes(from + 1n, to - 1n, anyFraction),
    ...exactly(to, fractionBelow(high)),
  ])
}

const ZERO: Bound = { at: { whole: 0n, fraction: '' }, open: false }
const FAR: Bound = { at: { whole: LARGEST, fraction: '' }, open: false }

interface Signed extends Bound {
  readonly negative: boolean
}

/** undefined: a number that is not written as plain digits. */
const signed = (value: number, open: boolean): Signed | undefined => {
  const [, minus, whole, fraction = ''] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(String(value)) ?? []
  if (whole === undefined) return undefined
  const isZero = value === 0
  return { negative: minus === '-' && !isZero, open, at: { whole: BigInt(whole), fraction } }
}

/** The stricter of two bounds on one side. */
const stricter = (
  plain: number | undefined,
  open: number | undefined,
  isLow: boolean,
): [number, boolean] | undefined => {
  if (plain === undefined) return open === undefined ? undefined : [open, true]
  if (open === undefined) return [plain, false]
  return (isLow ? open >= plain : open <= plain) ? [open, true] : [plain, false]
}

const clamp = (value: bigint): bigint => (value > LARGEST ? LARGEST : value < -LARGEST ? -LARGEST : value)

const integerBetween = (low: [number, boolean] | undefined, high: [number, boolean] | undefined): Piece | undefined => {
  const least = low ? BigInt(low[1] ? Math.floor(low[0]) + 1 : Math.ceil(low[0])) : -LARGEST
  const most = high ? BigInt(high[1] ? Math.ceil(high[0]) - 1 : Math.floor(high[0])) : LARGEST
  if (least > LARGEST || most < -LARGEST) return undefined
  return integers(clamp(least), clamp(most))
}

/** Numbers within `bounds`; 'none' where there is none, 'spelling' where a bound needs an exponent to be written. */
export const numberBetween = (bounds: NumberBounds, isInteger: boolean): Piece | 'none' | 'spelling' => {
  const low = stricter(bounds.minimum, bounds.exclusiveMinimum, true)
  const high = stricter(bounds.maximum, bounds.exclusiveMaximum, false)
  if (isInteger) return integerBetween(low, high) ?? 'none'
  const [from, to] = [low && signed(...low), high && signed(...high)]
  if ((low && !from) || (high && !to)) return 'spelling'
  const below =
    from && !from.negative
      ? undefined
      : to?.negative
        ? magnitudes(to, from ?? FAR)
        : magnitudes({ ...ZERO, open: true }, from ?? FAR)
  const above =
    to?.negative || (to && to.at.whole === 0n && to.at.fraction === '' && to.open)
      ? undefined
      : magnitudes(from && !from.negative ? from : ZERO, to ?? FAR)
  return either(below && seq(text('-'), below), above) ?? 'none'
}
