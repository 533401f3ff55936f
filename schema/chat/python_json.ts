// JSON text the way Python writes it (", " and ": ", non-ASCII kept), without ever turning it into JavaScript values:
// key order, integer-like keys, 1.0 and integers above 2^53 survive. Every function takes text and checks it first.

/** One member of an object (key decoded) or element of an array (key is its index); `text` is the value's own JSON. */
export interface JsonChild {
  readonly key: string
  readonly text: string
}

interface Token {
  readonly text: string
  readonly start: number
}

export const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Index just after the string literal that opens at `start`. No regular expression: they overflow on long strings. */
const stringEnd = (text: string, start: number): number => {
  for (let quote = text.indexOf('"', start + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let slashes = 0
    while (text[quote - 1 - slashes] === '\\') slashes++
    if (slashes % 2 === 0) return quote + 1
  }
  return text.length
}

/** Lexemes of valid JSON: punctuation, string literals, and everything else (numbers, words) as it stands. */
function* tokens(text: string): Generator<Token> {
  const plain = /[^\s{}[\],:"]+/y
  let i = 0
  while (i < text.length) {
    const char = text[i] ?? ''
    const start = i
    if (char === '"') i = stringEnd(text, i)
    else if ('{}[],:'.includes(char)) i++
    else {
      plain.lastIndex = i
      const match = plain.exec(text)
      if (!match) {
        i++
        continue
      }
      i += match[0].length
    }
    yield { text: text.slice(start, i), start }
  }
}

/** `text` reformatted with Python's separators and string escapes; `undefined` when it is no JSON. */
export const pythonJson = (text: string): string | undefined => {
  if (!isJson(text)) return undefined
  const parts: string[] = []
  for (const token of tokens(text)) {
    if (token.text === ',') parts.push(', ')
    else if (token.text === ':') parts.push(': ')
    else if (token.text.startsWith('"')) parts.push(JSON.stringify(JSON.parse(token.text)))
    else parts.push(token.text)
  }
  return parts.join('')
}

const SPACE = ' \t\n\r'

/** Index just after the value that begins at `start` of JSON that is valid, or breaks off. */
export const valueEnd = (text: string, start: number): number => {
  let depth = 0
  for (let i = start; i < text.length; ) {
    const char = text[i] ?? ''
    if (depth === 0 && i > start && ',}]'.includes(char)) return i
    if (char === '"') i = stringEnd(text, i)
    else {
      if (char === '{' || char === '[') depth++
      else if (char === '}' || char === ']') depth--
      i++
    }
  }
  return text.length
}

/** Of an object whose text breaks off, the text of one with the members that are whole; `undefined` when it is no such text. */
export const cutObject = (text: string): string | undefined => {
  if (!text.trimStart().startsWith('{')) return undefined
  let depth = 0
  let end = 0
  for (const { text: token, start } of tokens(text)) {
    if (token === '{' || token === '[') depth++
    else if (token === '}' || token === ']') depth--
    if (depth === 0) return undefined
    if (end === 0) end = start + 1
    else if (depth === 1 && token === ',') end = start
  }
  const whole = `${text.slice(0, end)}}`
  return isJson(whole) ? whole : undefined
}

/**
 * Children of a JSON object or array in their own order; of a key that occurs twice the last value counts, at the first
 * one's place, as in Python. `undefined` when `text` is no JSON object or array.
 */
export const jsonChildren = (text: string): JsonChild[] | undefined => {
  const trimmed = text.trimStart()
  if (!/^[{[]/.test(trimmed) || !isJson(text)) return undefined
  const isObject = trimmed.startsWith('{')
  const children = new Map<string, string>()
  const skip = (from: number, what: string): number => {
    let i = from
    while (what.includes(text[i] ?? '?')) i++
    return i
  }
  for (let i = skip(text.length - trimmed.length + 1, SPACE); text[i] !== '}' && text[i] !== ']'; ) {
    const keyEnd = isObject ? stringEnd(text, i) : i
    const key = isObject ? String(JSON.parse(text.slice(i, keyEnd))) : String(children.size)
    const from = isObject ? skip(keyEnd, `${SPACE}:`) : i
    const to = valueEnd(text, from)
    children.set(key, text.slice(from, to).trimEnd())
    i = skip(to, `${SPACE},`)
  }
  return [...children].map(([name, value]) => ({ key: name, text: value }))
}

/** JSON text of the value at `path`, as it is spelled. Each step reads what it is in whole. */
export const rawJson = (text: string, path: readonly (string | number)[]): string | undefined =>
  path.reduce<string | undefined>(
    (at, key) => (at === undefined ? undefined : jsonChildren(at)?.find((child) => child.key === String(key))?.text),
    text,
  )

/** JSON texts of the items of the array at `path`, in one reading. */
export const rawItems = (text: string, path: readonly string[]): string[] =>
  (jsonChildren(rawJson(text, path) ?? '') ?? []).map((item) => item.text)
