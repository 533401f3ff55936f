// Damaged tokenizer files: each gives a tokenizer that keeps every byte of a text, or a StartError; never another error, a hang
// or memory beyond a bound. Every attempt runs on a thread that can be ended.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { tempDir } from './fixture.ts'
import type { Attempt, Ending } from './tokenizer_worker.ts'

const MODEL = fileURLToPath(new URL('../../gpu-node/model', import.meta.url))
const WORKER = new URL('./tokenizer_worker.ts', import.meta.url)
const TEXT = 'It is 12 o’clock;\n\nthe  tokenizer\treads 漢字, é and 🎉.'
const MEMORY_MB = 192
/** An attempt takes milliseconds; one that hangs on a busy machine is told from one that waits for its turn. */
const ATTEMPT_MS = 40_000

type Value = null | boolean | number | string | Value[] | { [key: string]: Value }

/** The embedded tokenizer with the first few merges only, so that an attempt takes milliseconds. */
const small = (): Value => {
  const file = JSON.parse(readFileSync(join(MODEL, 'tokenizer.json'), 'utf8'))
  const added: { id: number; content: string }[] = file.added_tokens.slice(0, 3)
  const merges: string[] = file.model.merges.slice(0, 12)
  const wanted = new Set(merges.map((merge) => merge.replace(' ', '')).concat(added.map(({ content }) => content)))
  const vocab: Record<string, number> = {}
  for (const [token, id] of Object.entries<number>(file.model.vocab))
    if ([...token].length === 1 || wanted.has(token)) vocab[token] = id
  return { ...file, added_tokens: added, model: { ...file.model, vocab, merges } }
}

const dir = tempDir()
const sound = small()
let worker: Worker
const start = () => new Worker(WORKER, { resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB } })
beforeAll(() => {
  worker = start()
})
afterAll(async () => {
  await worker.terminate()
  dir.remove()
})

/** How loading `file` and encoding with it ends. The thread is replaced when it hangs or runs out of memory. */
const ending = async (file: string, text = TEXT): Promise<Ending> => {
  writeFileSync(join(dir.path, 'tokenizer.json'), file)
  const { promise, resolve } = Promise.withResolvers<Ending>()
  const crashed = (message: string): void => resolve({ kind: 'crashed', message })
  const failed = (error: Error): void => crashed(error.message)
  const clock = setTimeout(crashed, ATTEMPT_MS, 'takes too long')
  worker.on('error', failed).on('message', resolve)
  worker.postMessage({ dir: dir.path, text } satisfies Attempt)
  const outcome = await promise
  clearTimeout(clock)
  worker.off('error', failed).off('message', resolve)
  if (outcome.kind === 'crashed') {
    await worker.terminate()
    worker = start()
  }
  return outcome
}

/** Loads, or refuses with a reason. */
const survives = async (file: string): Promise<void> => {
  const end = await ending(file)
  if (end.kind === 'refused') expect(end.message).toContain('tokenizer.json')
  else expect(end).toEqual({ kind: 'encoded', text: TEXT, wellFormed: true })
}

const odd: fc.Arbitrary<Value> = fc.oneof(
  fc.constantFrom<Value>(
    null,
    true,
    -1,
    0.5,
    1e9,
    2 ** 32 - 1,
    2 ** 53,
    1e308,
    '',
    'a',
    '\u0000',
    '(',
    '(a+)+$',
    [],
    {},
  ),
  fc.constantFrom<Value>(
    'BPE',
    'Split',
    'Digits',
    'Metaspace',
    'ByteLevel',
    'Sequence',
    'Replace',
    'Isolated',
    'Removed',
  ),
  fc.string({ maxLength: 8 }),
  fc.integer({ min: -5, max: 3000 }),
)

/** Follows `path` (each step modulo the number of entries) down to an entry and changes that. */
const damage = (
  value: Value,
  path: readonly number[],
  change: (holder: Value[] | { [key: string]: Value }, key: string) => void,
): void => {
  if (value === null || typeof value !== 'object') return
  const keys = Object.keys(value)
  const [step = 0, ...rest] = path
  const key = keys[step % keys.length]
  if (key === undefined) return
  const inner = (value as { [key: string]: Value })[key]
  if (rest.length > 0 && inner !== null && typeof inner === 'object' && Object.keys(inner).length > 0)
    damage(inner, rest, change)
  else change(value, key)
}

const put = (holder: Value[] | { [key: string]: Value }, key: string, value: Value | undefined): void => {
  const fields = holder as { [key: string]: Value }
  if (value === undefined) delete fields[key]
  else fields[key] = value
}

test('values that are missing or other than expected', async () => {
  const path = fc.array(fc.nat(1000), { minLength: 1, maxLength: 5 })
  const change = fc.record({ path, value: fc.option(odd, { nil: undefined }) })
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
      const file = structuredClone(sound)
      for (const { path, value } of changes) damage(file, path, (holder, key) => put(holder, key, value))
      await survives(JSON.stringify(file))
    }),
    { numRuns: 300, seed: 3 },
  )
}, 60_000)

test('bytes that are missing or other than written', async () => {
  const text = JSON.stringify(sound)
  const edit = fc.record({ at: fc.nat(text.length), length: fc.nat(8), by: fc.string({ maxLength: 4 }) })
  await fc.assert(
    fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 3 }), async (edits) => {
      let file = text
      for (const { at, length, by } of edits) file = file.slice(0, at) + by + file.slice(at + length)
      await survives(file)
    }),
    { numRuns: 150, seed: 3 },
  )
}, 60_000)

test('an id decides no memory: a vocabulary of DeepSeek’s size loads, an id beyond any vocabulary is refused', async () => {
  const file = small() as { model: { vocab: Record<string, number> } }
  // Among them more than a call takes arguments.
  for (let i = 0; i < 200_000; i++) file.model.vocab[`token${i}`] = 3000 + i
  expect((await ending(JSON.stringify(file))).kind).toBe('encoded')
  for (const id of [2 ** 22, 4e9, 2 ** 32, 2 ** 53]) {
    file.model.vocab = { ...(sound as typeof file).model.vocab, token: id }
    expect(await ending(JSON.stringify(file))).toMatchObject({ kind: 'refused' })
  }
})

test('a vocabulary without some byte is refused, since texts would lose it', async () => {
  const file = structuredClone(sound) as { model: { vocab: Record<string, number> } }
  delete file.model.vocab['©']
  expect(await ending(JSON.stringify(file))).toMatchObject({
    kind: 'refused',
    message: expect.stringContaining('bytes of a text'),
  })
})
