// Numbers between bounds, counted strings and patterns as grammars, against plain comparison and the engine's own RegExp.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { FORMATS } from '../../../schema/grammar/formats.ts'
import { countedString, otherKey } from '../../../schema/grammar/json_text.ts'
import { type NumberBounds, numberBetween } from '../../../schema/grammar/number_range.ts'
import { patternPiece } from '../../../schema/grammar/pattern.ts'
import { type Piece, Rules, seq } from '../../../schema/grammar/rules.ts'
import { accepts } from './recognizer.ts'

const bound = fc.oneof(
  fc.integer({ min: -120, max: 120 }),
  fc.integer({ min: -3000, max: 3000 }).map((n) => n / 100),
)
const bounds = fc.record(
  { minimum: bound, maximum: bound, exclusiveMinimum: bound, exclusiveMaximum: bound },
  { requiredKeys: [] },
)
const spelled = fc.oneof(
  fc.integer({ min: -150, max: 150 }).map(String),
  fc.integer({ min: -4000, max: 4000 }).map((n) => (n / 100).toFixed(2)),
  fc.integer({ min: -40_000, max: 40_000 }).map((n) => (n / 1000).toFixed(3)),
  bound.map(String),
)

const inside = (value: number, b: NumberBounds): boolean =>
  (b.minimum === undefined || value >= b.minimum) &&
  (b.maximum === undefined || value <= b.maximum) &&
  (b.exclusiveMinimum === undefined || value > b.exclusiveMinimum) &&
  (b.exclusiveMaximum === undefined || value < b.exclusiveMaximum)

test('a number is accepted exactly when it lies between its bounds', () => {
  fc.assert(
    fc.property(bounds, fc.array(spelled, { minLength: 20, maxLength: 20 }), fc.boolean(), (b, texts, isInteger) => {
      const piece = numberBetween(b, isInteger)
      if (piece === 'spelling') return false
      for (const text of texts) {
        // Minus zero is left to plain zero.
        if (Number(text) === 0 && text.startsWith('-')) continue
        const wanted = inside(Number(text), b) && (!isInteger || !text.includes('.'))
        const found = piece !== 'none' && accepts(new Rules(), piece, text)
        if (found !== wanted) throw new Error(`${text} in ${JSON.stringify(b)}: ${found}`)
      }
      return true
    }),
    { numRuns: 400 },
  )
})

test('numbers that no plain digits write are refused, an empty range is none', () => {
  expect(numberBetween({ minimum: 1e-7 }, false)).toBe('spelling')
  expect(numberBetween({ minimum: 3, maximum: 2 }, true)).toBe('none')
  expect(numberBetween({ exclusiveMinimum: 2, maximum: 2 }, false)).toBe('none')
})

test('a counted string has exactly the counts asked for', () => {
  fc.assert(
    fc.property(fc.nat(40), fc.nat(40), fc.nat(90), (least, more, length) => {
      const rules = new Rules()
      const piece = countedString(rules, 'json', least, least + more)
      const body = Array.from({ length }, (_, i) => ['x', '\\n', 'é', '\\u00e9', '🎉'][i % 5]).join('')
      expect(accepts(rules, piece, `"${body}"`)).toBe(length >= least && length <= least + more)
    }),
    { numRuns: 60 },
  )
})

const PATTERNS: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ['^[a-z]{2,7}\\d+$', ['ab1', 'abcdefg12'], ['a1', 'ab', 'abcdefgh1', 'ab1x']],
  ['b+', ['b', 'abc', 'bbb'], ['', 'ac']],
  ['^(?:yes|no)$|^maybe', ['yes', 'no', 'maybe not'], ['yes!', 'oh no']],
  ['^\\S+\\s\\S+$', ['a b', 'é ü'], ['ab', 'a  b']],
  ['^[^"\\\\]*$', ['', 'plain'], ['"', '\\']],
  ['^.{3}$', ['"\\x', 'é漢🎉'], ['ab', 'a\nb']],
  ['^(a|b(c|d)){2}e?$', ['aa', 'bcbd', 'abde'], ['a', 'bb', 'aaee']],
  ['^\\u0041\\x42[\\w.-]$', ['AB.', 'AB-', 'AB_'], ['AB', 'AB!']],
]

test.each(PATTERNS)('pattern %s', (source, right, wrong) => {
  for (const quoting of ['json', 'raw'] as const) {
    const rules = new Rules()
    const found = patternPiece(source, quoting, rules)
    if ('refused' in found) throw new Error(found.refused)
    const spell = (text: string) => (quoting === 'json' ? JSON.stringify(text).slice(1, -1) : text)
    for (const text of [...right, ...wrong]) {
      const matches = new RegExp(source, 'u').test(text)
      expect(matches, text).toBe(right.includes(text))
      expect(accepts(rules, found.piece, spell(text)), `${quoting} ${text}`).toBe(matches)
    }
  }
})

/** Alternatives that begin alike in all ways: few letters, classes that overlap. */
const pattern: fc.Arbitrary<string> = fc.letrec<{ ways: string; way: string; item: string }>((tie) => ({
  ways: fc.array(tie('way'), { minLength: 1, maxLength: 4 }).map((ways) => ways.join('|')),
  way: fc.array(tie('item'), { minLength: 1, maxLength: 3 }).map((items) => items.join('')),
  item: fc
    .tuple(
      fc.oneof(
        { depthSize: 'small', withCrossShrink: true },
        fc.constantFrom('a', 'b', '[a-b]', '[a-c]', '[^ab]'),
        tie('ways').map((ways) => `(${ways})`),
      ),
      fc.constantFrom('', '', '', '?', '*', '{1,2}'),
    )
    .map((parts) => parts.join('')),
})).ways

test('a pattern without choices accepts what the pattern accepts', () => {
  const words = fc.array(fc.constantFrom('a', 'b', 'c', 'é'), { maxLength: 5 }).map((word) => word.join(''))
  fc.assert(
    fc.property(pattern, fc.array(words, { minLength: 10, maxLength: 10 }), (source, texts) => {
      const rules = new Rules()
      const found = patternPiece(`^(${source}|b)$`, 'raw', rules)
      if ('refused' in found) throw new Error(found.refused)
      for (const text of texts) {
        const matches = new RegExp(`^(${source}|b)$`, 'u').test(text)
        expect(accepts(rules, found.piece, text), `${source} ${text}`).toBe(matches)
      }
    }),
    { numRuns: 200 },
  )
}, 60_000)

test.each(['(?=a)b', '(a)\\1', '\\bword', '[一-龥]', '[^é]', '(?<!a)b', 'a{2000}', '^a$b', '['])(
  'no grammar for %s',
  (source) => {
    expect(patternPiece(source, 'json', new Rules())).toHaveProperty('refused')
  },
)

const SAMPLES: Readonly<Record<string, readonly string[]>> = {
  date: ['2024-02-28', '2024-02-30'],
  time: ['23:59:59Z', '24:00:00Z'],
  'date-time': ['2024-12-31T23:59:59.5+01:00', '2024-12-31 23:59:59'],
  duration: ['P3D', 'P'],
  email: ['a.b@example.com', 'a@b@c.de'],
  hostname: ['api.example.com', '-a.com'],
  ipv4: ['255.1.0.10', '256.1.1.1'],
  ipv6: ['1:2:3:4:5:6:7:8', '1::8'],
  uuid: ['123e4567-e89b-42d3-a456-426614174000', '123e4567'],
  uri: ['https://example.com/a/b', 'example'],
}

test.each(Object.keys(FORMATS))('format %s', (name) => {
  const rules = new Rules()
  const found = patternPiece(FORMATS[name] ?? '', 'json', rules)
  if ('refused' in found) throw new Error(found.refused)
  const [right = '', wrong = ''] = SAMPLES[name] ?? []
  expect(accepts(rules, found.piece, right)).toBe(true)
  expect(accepts(rules, found.piece, wrong)).toBe(false)
})

test('another key is any but those taken', () => {
  const taken = ['ab', 'abc', 'x-y', '']
  const rules = new Rules()
  const piece = seq(otherKey(rules, taken))
  for (const key of ['a', 'abcd', 'b', 'x', 'x-', 'é', ' ']) expect(accepts(rules, piece, `"${key}"`), key).toBe(true)
  for (const key of [...taken, '\\u0061b']) expect(accepts(rules, piece, `"${key}"`), key).toBe(false)
  const accented = new Rules()
  expect(accepts(accented, otherKey(accented, ['é']), '"é"')).toBe(false)
})

const pieceIn = (rules: Rules, source: string): Piece => {
  const found = patternPiece(source, 'raw', rules)
  if ('refused' in found) throw new Error(found.refused)
  return found.piece
}

test('patterns of one grammar share what may be spent on them', () => {
  const rules = new Rules()
  const long = Array.from({ length: 300 }, (_, i) =>
    pieceIn(rules, `^(${'[a-c]?'.repeat(30)}|${'[b-d]?'.repeat(20)}${i})$`),
  )
  // Later ones stay as they were written: an alternative for each of theirs.
  expect(long[0]?.kind).toBe('rule')
  expect(long.at(-1)?.kind).toBe('alt')
})

test('a pattern nested too deep is refused, not a crash; a class of very many is read', () => {
  const deep = (levels: number) =>
    patternPiece(`^${'(?:'.repeat(levels)}a|ab${')+'.repeat(levels)}$`, 'raw', new Rules())
  expect(deep(100)).toHaveProperty('piece')
  for (const levels of [101, 4000]) expect(deep(levels)).toHaveProperty('refused', 'groups over 100 deep')
  const apart = Array.from({ length: 40_000 }, (_, i) => String.fromCodePoint(0x20000 + 2 * i)).join('')
  expect(patternPiece(`^[${apart}]$`, 'raw', new Rules())).toHaveProperty('refused')
})

test('a count is not written out for an automaton', () => {
  const counted = new Rules()
  expect(pieceIn(counted, '^(?:[a-z0-9]{1,60}|[a-z])$').kind).toBe('alt')
  expect(counted.bodies.size).toBeLessThan(20)
})
