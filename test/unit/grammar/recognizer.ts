// A slow, obvious recognizer of grammar pieces: all ends that a piece can reach from a position. What the library's masks
// are made of is judged with it, without the library.
import type { Piece, Rules } from '../../../schema/grammar/rules.ts'

export const accepts = (rules: Rules, root: Piece, input: string): boolean => {
  const chars = [...input]
  const known = new Map<string, ReadonlySet<number>>()

  const through = (items: readonly Piece[], from: number): ReadonlySet<number> => {
    let ends: ReadonlySet<number> = new Set([from])
    for (const item of items) ends = new Set([...ends].flatMap((at) => [...reach(item, at)]))
    return ends
  }

  const repeated = (of: Piece, least: number, most: number, from: number): ReadonlySet<number> => {
    const found = new Set<number>(least === 0 ? [from] : [])
    let ends: ReadonlySet<number> = new Set([from])
    const seen = new Set<string>()
    for (let count = 1; count <= most && ends.size > 0; count++) {
      ends = new Set([...ends].flatMap((at) => [...reach(of, at)]))
      if (count >= least) for (const end of ends) found.add(end)
      const state = [...ends].sort().join()
      if (count >= least && seen.has(state)) break
      seen.add(state)
    }
    return found
  }

  const reach = (piece: Piece, from: number): ReadonlySet<number> => {
    switch (piece.kind) {
      case 'text': {
        const wanted = [...piece.text]
        return new Set(wanted.every((char, i) => chars[from + i] === char) ? [from + wanted.length] : [])
      }
      case 'class': {
        const code = chars[from]?.codePointAt(0)
        if (code === undefined) return new Set()
        const isIn = piece.ranges.some(([low, high]) => low <= code && code <= high)
        return new Set(isIn === piece.not ? [] : [from + 1])
      }
      case 'seq':
        return through(piece.items, from)
      case 'alt':
        return new Set(piece.items.flatMap((item) => [...reach(item, from)]))
      case 'repeat':
        return repeated(piece.of, piece.least, piece.most, from)
      case 'rule': {
        const key = `${piece.name} ${from}`
        const found = known.get(key) ?? reach(rules.bodies.get(piece.name) as Piece, from)
        known.set(key, found)
        return found
      }
    }
  }

  return reach(root, 0).has(chars.length)
}
