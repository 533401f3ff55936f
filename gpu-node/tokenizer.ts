// Prompt text to token ids and ids back to bytes. The BPE itself is the kept library's; this file feeds it in pieces cut
// where no token can span, so that a long prompt neither blocks running streams nor is encoded again in its next turn.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Tokenizer as Bpe } from '@huggingface/tokenizers'
import { z } from 'zod'
import { StartError } from './config.ts'

export interface EncodedPrompt {
  readonly ids: Int32Array
  /** UTF-8 length of each token's text. */
  readonly bytes: number[]
}

export interface Tokenizer {
  readonly vocabSize: number
  /** Bytes of each id's text, special strings included. */
  readonly textBytes: readonly Uint8Array[]
  /** The same with special tokens empty: what stop strings are matched on. */
  readonly tokenBytes: readonly Uint8Array[]
  readonly longestTokenBytes: number
  /** Id of each special string. */
  readonly specialIds: ReadonlyMap<string, number>
  /**
   * Special strings become their ids; nothing is added. Yields to other work every few milliseconds. What `tenant` had encoded before
   * comes from a cache, for it alone: a time tells nobody what others wrote. Without one nothing is kept.
   */
  encode(prompt: string, tenant?: string): Promise<EncodedPrompt>
}

/** As in the engine's config: tables are made for every id up to the largest. */
const IDS_MAX = 2 ** 22
const idSchema = z
  .number()
  .int()
  .nonnegative()
  .max(IDS_MAX - 1)

const addedToken = z.object({
  id: idSchema,
  content: z.string().min(1),
  single_word: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
})

/** A map: as an object it would lose a token `__proto__`. */
const vocabSchema = z.preprocess(
  (vocab) =>
    typeof vocab === 'object' && vocab !== null && !Array.isArray(vocab) ? new Map(Object.entries(vocab)) : vocab,
  z.map(z.string(), idSchema),
)

const fileSchema = z.object({
  added_tokens: z.array(addedToken).default([]),
  normalizer: z.object({ type: z.literal('Sequence'), normalizers: z.array(z.unknown()).length(0) }).nullish(),
  pre_tokenizer: z.object({ type: z.literal('Sequence'), pretokenizers: z.array(z.object({ type: z.string() })) }),
  decoder: z.object({ type: z.literal('ByteLevel') }),
  model: z.object({ type: z.literal('BPE'), vocab: vocabSchema }),
})

/** Characters a piece has at least; small enough that encoding one takes a few milliseconds at most. */
const PIECE_CHARS = 4096
/**
 * Between a non-space and a space followed by a letter, or behind a newline between two non-spaces, every byte-level
 * pre-tokenizer in use cuts anyway, and none of their look-aheads reaches across.
 */
const CUT = /(?<=\S)(?= \p{L})|(?<=\S\n)(?=\S)/gu
const YIELD_MS = 5
/** Text without such a place (Chinese, base64, a run of blanks) is cut anyway: in one piece it would stop every stream for seconds. */
const PIECE_CHARS_MAX = 8192
const CACHE_CHARS = 8 * 1024 * 1024
const CACHE_MIN_CHARS = 32

/** The printable character that byte-level BPE writes for each byte, as GPT-2 laid it down. */
export const charOfByte = (): string[] => {
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
    return String.fromCodePoint(printable ? byte : next++)
  })
}

const bytesOfVocab = (file: z.infer<typeof fileSchema>): { text: Uint8Array[]; plain: Uint8Array[] } => {
  const byChar = new Map(charOfByte().map((char, byte) => [char, byte]))
  let size = 0
  for (const id of file.model.vocab.values()) size = Math.max(size, id + 1)
  for (const { id } of file.added_tokens) size = Math.max(size, id + 1)
  const empty = new Uint8Array()
  const plain = new Array<Uint8Array>(size).fill(empty)
  const special = new Map(file.added_tokens.map(({ id, content }) => [id, content]))
  for (const [token, id] of file.model.vocab) {
    if (special.has(id)) continue
    plain[id] = Uint8Array.from(token, (char) => {
      const byte = byChar.get(char)
      if (byte === undefined) throw new StartError(`tokenizer.json: token ${id} is not byte-level`)
      return byte
    })
  }
  const text = [...plain]
  for (const [id, content] of special) text[id] = new TextEncoder().encode(content)
  return { text, plain }
}

/** Every byte that UTF-8 can hold, in characters of all lengths, and a few words. */
const PROBE = ['The tokenizer  keeps\n\nevery byte: 2026 漢字.']
  .concat(Array.from({ length: 0x800 / 64 }, (_, i) => String.fromCodePoint(i * 64, i * 64 + 13)))
  .concat(Array.from({ length: 192 }, (_, i) => String.fromCodePoint(i)))
  .concat(['\u0800\u1000\u2000\u3000\u4000\u5000\u6000\u7000\u8000\u9000\ua000\ub000\uc000\ud000\ue000\uf000'])
  .concat(['\u{1f389}\u{50000}\u{90000}\u{d0000}\u{10ffff}'])
  .join('')

/** The library's tokenizer, once it has shown that it loses nothing: what a prompt costs and shares is counted in bytes. */
const openBpe = (json: object, text: readonly Uint8Array[]): Bpe => {
  const bpe = new Bpe(json, {})
  const parts = bpe.encode(PROBE, { add_special_tokens: false }).ids.map((id) => text[id] ?? new Uint8Array())
  if (Buffer.concat(parts).toString() !== PROBE) throw new Error('it does not give back the bytes of a text')
  return bpe
}

const nameOf = (tenant: string, piece: string): string => `${tenant}\n${piece}`

/** Encoded pieces by tenant and text, oldest out first. */
class PieceCache {
  readonly #pieces = new Map<string, Int32Array>()
  #chars = 0

  get(tenant: string, piece: string): Int32Array | undefined {
    const name = nameOf(tenant, piece)
    const ids = this.#pieces.get(name)
    if (!ids) return undefined
    this.#pieces.delete(name)
    this.#pieces.set(name, ids)
    return ids
  }

  set(tenant: string, piece: string, ids: Int32Array): void {
    if (piece.length < CACHE_MIN_CHARS || piece.length > CACHE_CHARS / 8) return
    const name = nameOf(tenant, piece)
    this.#pieces.set(name, ids)
    this.#chars += name.length
    for (const [old] of this.#pieces) {
      if (this.#chars <= CACHE_CHARS) break
      this.#pieces.delete(old)
      this.#chars -= old.length
    }
  }
}

/** `text` in pieces of PIECE_CHARS to PIECE_CHARS_MAX, cut where no token spans or, where there is no such place, between characters. */
export const cutPieces = (text: string): string[] => {
  const pieces: string[] = []
  let start = 0
  while (text.length - start > PIECE_CHARS) {
    const from = start + PIECE_CHARS - 2
    CUT.lastIndex = 2
    const found = CUT.exec(text.slice(from, start + PIECE_CHARS_MAX + 2))?.index
    if (found === undefined && text.length - start <= PIECE_CHARS_MAX) break
    let cut = found === undefined ? start + PIECE_CHARS_MAX : from + found
    if (/[\ud800-\udbff]/.test(text[cut - 1] ?? '')) cut--
    pieces.push(text.slice(start, cut))
    start = cut
  }
  pieces.push(text.slice(start))
  return pieces
}

const escapeRegExp = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')

const readTokenizer = async (modelDir: string): Promise<{ json: object; file: z.infer<typeof fileSchema> }> => {
  const path = join(modelDir, 'tokenizer.json')
  let json: unknown
  try {
    json = JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    throw new StartError(`${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
  const parsed = fileSchema.safeParse(json)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    throw new StartError(`${path}: ${issue?.path.join('.')}: ${issue?.message} (only byte-level BPE is supported)`)
  }
  const odd = parsed.data.added_tokens.find((token) => token.lstrip || token.rstrip || token.single_word)
  if (odd) throw new StartError(`${path}: added token ${odd.id}: lstrip, rstrip and single_word are not supported`)
  return { json: json as object, file: parsed.data }
}

/** Loads `tokenizer.json`. Errors: StartError naming the field that is missing or not supported. */
export const loadTokenizer = async (modelDir: string): Promise<Tokenizer> => {
  const { json, file } = await readTokenizer(modelDir)
  const { text, plain } = bytesOfVocab(file)
  let bpe: Bpe
  try {
    bpe = openBpe(json, text)
  } catch (error) {
    throw new StartError(`tokenizer.json: ${error instanceof Error ? error.message : String(error)}`)
  }
  const specialIds = new Map(file.added_tokens.map(({ content, id }) => [content, id]))
  const longestFirst = [...specialIds.keys()].sort((a, b) => b.length - a.length)
  const split = longestFirst.length > 0 ? new RegExp(`(${longestFirst.map(escapeRegExp).join('|')})`) : undefined
  const cache = new PieceCache()

  const encodePiece = (piece: string, tenant: string | undefined): Int32Array => {
    const known = tenant === undefined ? undefined : cache.get(tenant, piece)
    if (known) return known
    const ids = Int32Array.from(bpe.encode(piece, { add_special_tokens: false }).ids)
    if (tenant !== undefined) cache.set(tenant, piece, ids)
    return ids
  }

  const encode = async (prompt: string, tenant?: string): Promise<EncodedPrompt> => {
    const parts: Int32Array[] = []
    let since = performance.now()
    for (const stretch of split ? prompt.split(split) : [prompt]) {
      const special = specialIds.get(stretch)
      if (special !== undefined) parts.push(Int32Array.of(special))
      if (special !== undefined || stretch === '') continue
      for (const piece of cutPieces(stretch)) {
        parts.push(encodePiece(piece, tenant))
        if (performance.now() - since < YIELD_MS) continue
        await new Promise((resume) => setImmediate(resume))
        since = performance.now()
      }
    }
    const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0))
    let at = 0
    for (const part of parts) {
      ids.set(part, at)
      at += part.length
    }
    return { ids, bytes: Array.from(ids, (id) => text[id]?.length ?? 0) }
  }

  return {
    vocabSize: text.length,
    textBytes: text,
    tokenBytes: plain,
    specialIds,
    longestTokenBytes: text.reduce((longest, bytes) => Math.max(longest, bytes.length), 1),
    encode,
  }
}
