// Parts of UTF-8 against the platform's own strict decoder.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isUtf8Part, LIMITED_LEADS, mayFollow } from '../../gpu-node/utf8_tokens.ts'

const isValid = (bytes: readonly number[]): boolean => {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(bytes))
    return true
  } catch {
    return false
  }
}

test('a first byte takes exactly the second ones that make a character', () => {
  for (let lead = 0xc2; lead < 0xf5; lead++) {
    const tail = lead < 0xe0 ? [] : lead < 0xf0 ? [0x80] : [0x80, 0x80]
    for (let second = 0; second < 256; second++)
      expect(mayFollow(lead, second), `${lead} ${second}`).toBe(isValid([lead, second, ...tail]))
  }
  expect(LIMITED_LEADS).toEqual([0xe0, 0xed, 0xf0, 0xf4])
})

test('every piece of a text is a part, and a whole part is a text', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 12 }), fc.nat(48), fc.nat(48), (text, from, to) => {
      expect(isUtf8Part(Buffer.from(text.toWellFormed()).subarray(from, to))).toBe(true)
    }),
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 6 }), (bytes) => {
      // Ended by an ASCII character and begun by one, a part has nothing to be completed by.
      const whole = [97, ...bytes, 97]
      expect(isUtf8Part(Uint8Array.from(whole))).toBe(isValid(whole))
    }),
    { numRuns: 5000 },
  )
})
