// The tokenizer's pieces and cache change nothing: same ids as encoding the whole text at once, bytes that add up, and a long
// prompt that leaves the event loop alone.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Tokenizer as Bpe } from '@huggingface/tokenizers'
import fc from 'fast-check'
import { beforeAll, expect, test, vi } from 'vitest'
import { cutPieces, loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
import { tempDir } from './fixture.ts'

const MODEL = fileURLToPath(new URL('../../gpu-node/model', import.meta.url))
let tokenizer: Tokenizer
let naive: Bpe

beforeAll(async () => {
  tokenizer = await loadTokenizer(MODEL)
  naive = new Bpe(JSON.parse(readFileSync(join(MODEL, 'tokenizer.json'), 'utf8')), {})
})

const ids = async (text: string): Promise<number[]> => Array.from((await tokenizer.encode(text, 'tenant')).ids)
const naiveIds = (text: string): number[] => naive.encode(text, { add_special_tokens: false }).ids

const fragment = fc.oneof(
  fc.constantFrom('<｜User｜>', '<｜Assistant｜>', '</think>', '<think>', '｜DSML｜', '<｜begin▁of▁sentence｜>'),
  fc.constantFrom(
    ' ',
    '  ',
    '\n',
    '\n\n',
    ' \n',
    '\t',
    '\r\n',
    "'s",
    '...',
    '漢字',
    'かな',
    '🎉',
    'é',
    '12345',
    ' word',
    '<｜',
  ),
  fc.string({ unit: 'grapheme', maxLength: 6 }),
)

test('same ids as encoding all at once, for any text', async () => {
  const texts = fc.array(fragment, { maxLength: 60 }).map((parts) => parts.join('').toWellFormed())
  await fc.assert(
    fc.asyncProperty(texts, async (text) => {
      expect(await ids(text)).toEqual(naiveIds(text))
    }),
    { numRuns: 300 },
  )
})

test('same ids across the cuts of long texts', async () => {
  const source = readFileSync(fileURLToPath(new URL('./run.test.ts', import.meta.url)), 'utf8')
  const prose = 'The quick brown fox, 3 dogs...  and\n\n  a "cat"\r\nsat: 漢字 text. '.repeat(600)
  for (const text of [source.repeat(3), prose, 'x'.repeat(20_000), ' \n '.repeat(5000), 'a b\n'.repeat(6000)]) {
    expect(cutPieces(text).join('')).toBe(text)
    expect(await ids(text)).toEqual(naiveIds(text))
    // The second time from the cache.
    expect(await ids(text)).toEqual(naiveIds(text))
  }
  expect(cutPieces(prose).length).toBeGreaterThan(5)
})

test('text without a place to cut is cut all the same, between characters', async () => {
  for (const text of [
    '日本語'.repeat(10_000),
    '🎉'.repeat(9_000),
    '0123456789abcdef'.repeat(2_000),
    ' '.repeat(30_000),
  ]) {
    const pieces = cutPieces(text)
    expect(pieces.join('')).toBe(text)
    expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThanOrEqual(8192)
    for (const piece of pieces) expect(piece.isWellFormed()).toBe(true)
    const bytes = (await ids(text)).map((id) => tokenizer.textBytes[id] ?? new Uint8Array())
    expect(Buffer.concat(bytes).toString()).toBe(text)
  }
})

test('bytes of the tokens are the bytes of the text', async () => {
  const text = '<｜begin▁of▁sentence｜><｜User｜>Grüße 🎉 漢字\n<｜Assistant｜></think>'
  const { ids: encoded, bytes } = await tokenizer.encode(text)
  const whole = Buffer.concat(Array.from(encoded, (id) => tokenizer.textBytes[id] ?? new Uint8Array()))
  expect(whole.toString()).toBe(text)
  expect(bytes.reduce((sum, n) => sum + n, 0)).toBe(Buffer.byteLength(text))
  expect(encoded[0]).toBe(0)
  expect(tokenizer.tokenBytes[0]?.length).toBe(0)
})

test('a prompt of half a megabyte leaves the event loop alone', async () => {
  const source = readFileSync(fileURLToPath(new URL('./run.test.ts', import.meta.url)), 'utf8').split('\n')
  // Every line its own, so that nothing comes from the cache.
  let text = ''
  for (let i = 0; text.length < 500_000; i++) text += `${(i * 7919) % 10_007} ${source[i % source.length]}\n`
  let turns = 0
  const other = setInterval(() => turns++, 1)
  const start = performance.now()
  const { ids: encoded } = await tokenizer.encode(text)
  console.log(
    `500 KB: ${encoded.length} tokens in ${(performance.now() - start).toFixed(0)} ms, ${turns} turns for others`,
  )
  clearInterval(other)
  expect(encoded.length).toBeGreaterThan(50_000)
  // Counted, not timed, since this machine may be busy; encoding all at once leaves none.
  expect(turns).toBeGreaterThan(15)
})

test('a token named like a property of every object has its bytes', async () => {
  const dir = tempDir()
  const text = readFileSync(join(MODEL, 'tokenizer.json'), 'utf8')
  const id = tokenizer.vocabSize
  writeFileSync(join(dir.path, 'tokenizer.json'), text.replace(/"vocab": ?\{/, `$&"__proto__": ${id},`))
  const { textBytes } = await loadTokenizer(dir.path)
  expect(Buffer.from(textBytes[id] ?? []).toString()).toBe('__proto__')
  dir.remove()
})

test('a tokenizer this node cannot serve is refused by the field', async () => {
  const dir = tempDir()
  const file = JSON.parse(readFileSync(join(MODEL, 'tokenizer.json'), 'utf8'))
  const wrong = async (change: object): Promise<void> => {
    writeFileSync(join(dir.path, 'tokenizer.json'), JSON.stringify({ ...file, ...change }))
    await loadTokenizer(dir.path)
  }
  await expect(loadTokenizer(join(dir.path, 'none'))).rejects.toThrow('tokenizer.json')
  await expect(wrong({ normalizer: { type: 'NFC' } })).rejects.toThrow('normalizer')
  await expect(wrong({ decoder: { type: 'Metaspace' } })).rejects.toThrow('decoder')
  await expect(wrong({ model: { type: 'Unigram', vocab: {} } })).rejects.toThrow('model')
  dir.remove()
})

test('a piece that one tenant had encoded is encoded anew for another: the time would tell that it was there', async () => {
  const own = await loadTokenizer(MODEL)
  const text = 'The account number is 12345678, and nobody else may find that out.'
  const expected = naiveIds(text)
  const encode = vi.spyOn(Bpe.prototype, 'encode')
  const encodings = async (tenant?: string): Promise<number> => {
    encode.mockClear()
    expect(Array.from((await own.encode(text, tenant)).ids)).toEqual(expected)
    return encode.mock.calls.length
  }
  expect(await encodings('a')).toBe(1)
  expect(await encodings('a')).toBe(0)
  expect(await encodings('b')).toBe(1)
  for (let i = 0; i < 2; i++) expect(await encodings()).toBe(1)
  encode.mockRestore()
})
