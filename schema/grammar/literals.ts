// Fixed texts as a tree: what begins alike is written once. Of alternatives such as `b | bb | a | ab` the grammar library makes
// an endless `abbb...`.
import { alt, EMPTY, type Piece, seq, text } from './rules.ts'

/** What all begin with, in whole characters. */
const commonStart = (texts: readonly string[]): string => {
  const [first = ''] = texts
  let length = first.length
  for (const each of texts) while (!each.startsWith(first.slice(0, length))) length--
  return /[\ud800-\udbff]/.test(first[length - 1] ?? '') ? first.slice(0, length - 1) : first.slice(0, length)
}

/** Any of `texts`, of which there is one at least. */
export const anyText = (texts: readonly string[]): Piece => {
  const groups = new Map<string, string[]>()
  for (const each of new Set(texts)) {
    const [first = ''] = each
    const group = groups.get(first)
    if (group) group.push(each)
    else groups.set(first, [each])
  }
  const ways = [...groups.values()].map((group) => {
    const start = commonStart(group)
    if (start === '') return EMPTY
    return group.length === 1 ? text(start) : seq(text(start), anyText(group.map((each) => each.slice(start.length))))
  })
  return alt(...ways)
}
