// A piece written again so that no text can be read in two ways: as a deterministic automaton, a rule for each of its states.
// Of some texts that can be read in two, the grammar library takes too many (`[a-c]x|[b-d]xx|[b-d]xxx` for ever, `[a-c]*[a-c]` even
// empty).
import { type CharSet, classOf, complement, union } from './char_set.ts'
import { alt, EMPTY, type Piece, type Range, type Rules, seq, star, text } from './rules.ts'

/** Small enough for a few milliseconds. */
const POSITIONS_MAX = 400
const STATES_MAX = 120
class TooLarge extends Error {}

/** Thompson's construction: states with edges of their own and steps that read nothing. */
class Positions {
  readonly edges: { readonly set: CharSet; readonly to: number }[][] = []
  readonly steps: number[][] = []
  readonly #rules: Rules

  constructor(rules: Rules) {
    this.#rules = rules
  }

  add(): number {
    if (this.edges.length === POSITIONS_MAX) throw new TooLarge()
    this.steps.push([])
    return this.edges.push([]) - 1
  }

  /** Reads `piece` from `from` on; returns where that ends. */
  read(piece: Piece, from: number): number {
    switch (piece.kind) {
      case 'text':
        return [...piece.text].reduce((at, char) => this.#char([codeRange(char)], at), from)
      case 'class':
        return this.#char(piece.not ? complement(piece.ranges) : piece.ranges, from)
      case 'seq':
        return piece.items.reduce((at, item) => this.read(item, at), from)
      case 'alt':
        return this.#join(piece.items.map((item) => this.read(item, from)))
      case 'rule':
        if (this.#rules.isLongCount(piece.name)) throw new TooLarge()
        return this.read(this.#rules.bodies.get(piece.name) ?? EMPTY, from)
      case 'repeat':
        return this.#repeat(piece, from)
    }
  }

  #char(set: CharSet, from: number): number {
    const to = this.add()
    this.edges[from]?.push({ set, to })
    return to
  }

  #join(ends: readonly number[]): number {
    const end = this.add()
    for (const each of ends) this.steps[each]?.push(end)
    return end
  }

  #repeat({ of, least, most }: Extract<Piece, { kind: 'repeat' }>, from: number): number {
    let at = from
    for (let i = 0; i < least; i++) at = this.read(of, at)
    if (most === Number.POSITIVE_INFINITY) {
      const loop = this.#join([at])
      this.steps[this.read(of, loop)]?.push(loop)
      return this.#join([loop])
    }
    const ends = [at]
    for (let i = least; i < most; i++) {
      at = this.read(of, at)
      ends.push(at)
    }
    return this.#join(ends)
  }

  /** All positions reached without reading anything. */
  closure(from: Iterable<number>): number[] {
    const found = new Set(from)
    for (const position of found) for (const next of this.steps[position] ?? []) found.add(next)
    if (!this.#rules.spend(found.size)) throw new TooLarge()
    return [...found].sort((a, b) => a - b)
  }
}

const codeRange = (char: string): Range => [char.codePointAt(0) ?? 0, char.codePointAt(0) ?? 0]

interface State {
  readonly accepts: boolean
  /** No two sets share a character. */
  readonly edges: readonly { readonly set: CharSet; readonly to: number }[]
}

interface Automaton {
  readonly states: readonly State[]
  /** Some character was met by two alternatives. */
  readonly hadChoice: boolean
}

/** Ranges in which all `sets` are the same throughout. */
const slices = (sets: readonly CharSet[]): Range[] => {
  const starts = [...new Set(sets.flatMap((set) => set.flatMap(([from, to]) => [from, to + 1])))].sort((a, b) => a - b)
  return starts.slice(0, -1).map((from, i): Range => [from, (starts[i + 1] ?? 0) - 1])
}

const determine = (positions: Positions, end: number, rules: Rules): Automaton => {
  const states: State[] = []
  const names = new Map<string, number>()
  const queue: number[][] = []
  let hadChoice = false
  const nameOf = (closed: number[]): number => {
    const known = names.get(closed.join())
    if (known !== undefined) return known
    if (names.size === STATES_MAX) throw new TooLarge()
    queue.push(closed)
    names.set(closed.join(), names.size)
    return names.size - 1
  }
  nameOf(positions.closure([0]))
  for (const closed of queue) {
    const edges = closed.flatMap((position) => positions.edges[position] ?? [])
    const targets = new Map<number, Range[]>()
    const ranges = slices(edges.map(({ set }) => set))
    if (!rules.spend(ranges.length * edges.length)) throw new TooLarge()
    for (const slice of ranges) {
      const met = edges.filter(({ set }) => set.some(([from, to]) => from <= slice[0] && slice[0] <= to))
      if (met.length === 0) continue
      hadChoice ||= met.length > 1
      const to = nameOf(positions.closure(met.map((edge) => edge.to)))
      targets.set(to, [...(targets.get(to) ?? []), slice])
    }
    states.push({
      accepts: closed.includes(end),
      edges: [...targets].map(([to, ranges]) => ({ set: union(ranges), to })),
    })
  }
  return { states, hadChoice }
}

const charPiece = (set: CharSet): Piece | undefined => {
  const [first] = set
  return set.length === 1 && first && first[0] === first[1] ? text(String.fromCodePoint(first[0])) : classOf(set)
}

const followedBy = (char: Piece, then: Piece): Piece =>
  char.kind === 'text' && then.kind === 'text' ? text(char.text + then.text) : seq(char, then)

/** Whether a way from a state leads back to it over others. */
const hasLoops = (states: readonly State[]): boolean => {
  const seen = new Map<number, 'open' | 'done'>()
  const loops = (index: number): boolean => {
    if (seen.has(index)) return seen.get(index) === 'open'
    seen.set(index, 'open')
    const found = (states[index]?.edges ?? []).some(({ to }) => to !== index && loops(to))
    seen.set(index, 'done')
    return found
  }
  return loops(0)
}

/**
 * States that accept the same texts become one rule. `undefined` where the library has no class for an edge, or a way leads back other
 * than from a state to itself: masks of such rules take the library far longer than loops.
 */
const pieceOf = (states: readonly State[], rules: Rules): Piece | undefined => {
  if (hasLoops(states) || states.some(({ edges }) => edges.some(({ set }) => !charPiece(set)))) return undefined
  const pieces = new Map<number, Piece>()
  const shared = new Map<string, Piece>()
  const visit = (index: number): Piece => {
    const known = pieces.get(index)
    if (known) return known
    const { accepts, edges } = states[index] ?? { accepts: false, edges: [] }
    const next: Piece[] = accepts ? [EMPTY] : []
    let loop = EMPTY
    for (const { set, to } of edges) {
      const char = charPiece(set) ?? EMPTY
      if (to === index) loop = star(char)
      else next.push(followedBy(char, visit(to)))
    }
    const body = seq(loop, alt(...next))
    const key = JSON.stringify(body)
    const piece = shared.get(key) ?? (body.kind === 'seq' || body.kind === 'alt' ? rules.add(() => body) : body)
    shared.set(key, piece)
    pieces.set(index, piece)
    return piece
  }
  return visit(0)
}

/** `piece` without choices; itself where it has none, or cannot be written so. */
export const withoutChoices = (piece: Piece, rules: Rules): Piece => {
  if (!rules.spend(0)) return piece
  try {
    const positions = new Positions(rules)
    const end = positions.read(piece, positions.add())
    const { states, hadChoice } = determine(positions, end, rules)
    return hadChoice ? (pieceOf(states, rules) ?? piece) : piece
  } catch (error) {
    if (error instanceof TooLarge) return piece
    throw error
  }
}
