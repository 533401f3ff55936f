// Tokens of a byte-level vocabulary as parts of UTF-8: which can stand in a text at all, and which may follow a token that
// ends in the first byte of a character. The grammar library takes any continuation bytes behind any first byte.

/** First bytes whose second one is limited: overlong forms, surrogates, and what lies beyond the last code point. */
const SECOND: ReadonlyMap<number, readonly [number, number]> = new Map([
  [0xe0, [0xa0, 0xbf]],
  [0xed, [0x80, 0x9f]],
  [0xf0, [0x90, 0xbf]],
  [0xf4, [0x80, 0x8f]],
])

export const LIMITED_LEADS: readonly number[] = [...SECOND.keys()]

const isContinuation = (byte: number): boolean => byte >= 0x80 && byte <= 0xbf

/** Bytes of the character that starts with `lead`; 0: no character does. */
const lengthOf = (lead: number): number => {
  if (lead < 0x80) return 1
  if (lead < 0xc2) return 0
  if (lead < 0xe0) return 2
  if (lead < 0xf0) return 3
  return lead < 0xf5 ? 4 : 0
}

export const mayFollow = (lead: number, second: number): boolean => {
  const [low, high] = SECOND.get(lead) ?? [0x80, 0xbf]
  return second >= low && second <= high
}

/** Whether `bytes` occur in some valid text, cut anywhere at both ends. */
export const isUtf8Part = (bytes: Uint8Array): boolean => {
  let at = 0
  while (at < 3 && isContinuation(bytes[at] ?? 0)) at++
  while (at < bytes.length) {
    const lead = bytes[at] ?? 0
    const length = lengthOf(lead)
    if (length === 0) return false
    const rest = bytes.subarray(at + 1, at + length)
    if (!rest.every(isContinuation) || (rest.length > 0 && !mayFollow(lead, rest[0] ?? 0))) return false
    at += length
  }
  return true
}
