// The engine as the node uses it: batching, prefix cache, cancellation, stop strings, seeds, limits. The embedded model.
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { EngineError } from '../../gpu-node/engine/engine.ts'
import { type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
import { collect, GREEDY, prompt, withEngine } from './engines.ts'
import { GOLDENS, MODEL_DIR } from './golden.ts'

let tokenizer: Tokenizer
let engine: NativeEngine
const vocab = () => engine.info.vocabSize

beforeAll(async () => {
  tokenizer = await loadTokenizer(MODEL_DIR)
  engine = await openNativeEngine({ modelDir: MODEL_DIR, tokenBytes: tokenizer.tokenBytes })
})
afterAll(async () => {
  expect(engine.integrity()).toBe('')
  await engine.close()
})

test('greedy decode is the argmax of one long prefill', async () => {
  const tokens = prompt(200, vocab(), 3)
  const { ids } = await collect(engine, { tokens, maxTokens: 12 })
  const { logits } = engine.evaluate(Int32Array.from([...tokens, ...ids]), 1000, false)
  const argmax = (row: number): number => {
    const slice = logits.subarray(row * vocab(), (row + 1) * vocab())
    return slice.indexOf(Math.max(...slice))
  }
  expect(ids).toEqual(ids.map((_, i) => argmax(tokens.length - 1 + i)))
})

test('a cached prefix gives the same tokens as none, and counts whole pages', async () => {
  const tokens = prompt(300, vocab(), 4)
  const sampled = { temperature: 1, seed: 9n, maxTokens: 30 }
  const cold = await collect(engine, { tokens, ...sampled, cacheSalt: 'cold' })
  const warm = await collect(engine, { tokens, ...sampled, cacheSalt: 'cold' })
  expect(cold.cached).toBe(0)
  expect(warm.cached).toBe(256)
  expect(warm.ids).toEqual(cold.ids)
  expect(warm.end.computedTokens).toBe(300 - 256)
})

test('pages are never shared between salts, nor after the prompts part', async () => {
  const tokens = prompt(200, vocab(), 5)
  await collect(engine, { tokens, cacheSalt: 'x' })
  expect((await collect(engine, { tokens, cacheSalt: 'y' })).cached).toBe(0)
  const fork = tokens.with(70, tokens[71] === 5 ? 6 : 5)
  expect((await collect(engine, { tokens: fork, cacheSalt: 'x' })).cached).toBe(64)
  const exact = tokens.slice(0, 192)
  expect((await collect(engine, { tokens: exact, cacheSalt: 'x' })).cached).toBe(128)
})

test('many at once give what each gives alone', async () => {
  const specs = Array.from({ length: 9 }, (_, i) => ({
    tokens: prompt(20 + i * 37, vocab(), i + 10),
    cacheSalt: `many ${i}`,
    temperature: i % 2,
    seed: BigInt(i),
    maxTokens: 20,
  }))
  const together = await Promise.all(specs.map((spec) => collect(engine, spec)))
  for (const [i, spec] of specs.entries()) {
    const alone = await collect(engine, { ...spec, cacheSalt: `alone ${i}` })
    expect(together[i]?.ids, `sequence ${i}`).toEqual(alone.ids)
  }
})

test('a short request is not stuck behind a long prefill', async () => {
  const long = collect(engine, { tokens: prompt(3500, vocab(), 6), cacheSalt: 'long', maxTokens: 4 })
  const short = collect(engine, { tokens: prompt(10, vocab(), 7), maxTokens: 4 })
  const first = await Promise.race([long.then(() => 'long'), short.then(() => 'short')])
  await Promise.all([long, short])
  expect(first).toBe('short')
})

test('cancelling ends the sequence within a step', async () => {
  let cancelledAt = 0
  const end = await new Promise<{ reason: string }>((resolve) => {
    let seen = 0
    const handle = engine.submit(
      { ...GREEDY, tokens: prompt(30, vocab(), 8), ignoreEos: true, maxTokens: 3900 },
      (events) => {
        for (const event of events) {
          if (event.kind === 'end') resolve(event)
          if (event.kind === 'tokens') seen += event.ids.length
        }
        if (seen < 5 || cancelledAt) return
        handle.cancel()
        cancelledAt = engine.stats().steps
      },
    )
  })
  expect(end.reason).toBe('cancelled')
  expect(engine.stats().steps - cancelledAt).toBeLessThanOrEqual(1)
  expect(engine.stats().kvPagesUsed).toBe(0)
})

test('a stop string ends at the token that completes it', async () => {
  const { ids } = await tokenizer.encode(
    '<｜begin▁of▁sentence｜><｜User｜>What is the capital of France?<｜Assistant｜></think>',
  )
  const text = (tokens: readonly number[]) =>
    Buffer.concat(tokens.map((id) => tokenizer.tokenBytes[id] ?? Buffer.of())).toString()
  const whole = await collect(engine, { tokens: ids })
  expect(text(whole.ids)).toContain('capital of')
  const stopped = await collect(engine, { tokens: ids, stop: [Buffer.from('pital o')] })
  expect(stopped.end.reason).toBe('stop_string')
  expect(text(stopped.ids)).toContain('pital o')
  expect(text(stopped.ids.slice(0, -1))).not.toContain('pital o')
  expect(stopped.end.sampledTokens).toBe(stopped.ids.length)
})

test('a seed decides; another seed decides otherwise', async () => {
  const spec = { tokens: prompt(40, vocab(), 9), temperature: 1.5, maxTokens: 30 }
  const [a, b, c] = await Promise.all([5n, 5n, 6n].map((seed) => collect(engine, { ...spec, seed })))
  expect(a?.ids).toEqual(b?.ids)
  expect(a?.ids).not.toEqual(c?.ids)
})

test('selection really happens beyond index_topk', async () => {
  const before = engine.stats().sparseQueries
  await collect(engine, { tokens: prompt(400, vocab(), 11), cacheSalt: 'sparse', maxTokens: 1 })
  expect(engine.stats().sparseQueries - before).toBe(400 - 128)
})

test('what cannot be served is refused before any work', () => {
  const submit = (spec: object) => () => engine.submit({ ...GREEDY, tokens: prompt(4, vocab()), ...spec }, () => {})
  const code = (wanted: string) => expect.objectContaining({ code: wanted })
  expect(submit({ tokens: prompt(5000, vocab()) })).toThrow(code('context_too_long'))
  expect(submit({ tokens: new Int32Array() })).toThrow(code('bad_argument'))
  expect(submit({ tokens: Int32Array.of(1, vocab()) })).toThrow(code('bad_argument'))
  expect(submit({ tokens: Int32Array.of(-1) })).toThrow(code('bad_argument'))
  expect(submit({ temperature: Number.NaN })).toThrow(code('bad_argument'))
  expect(submit({ topP: 2 })).toThrow(code('bad_argument'))
  expect(submit({ maxTokens: 1.5 })).toThrow(/maxTokens: a whole number/)
  expect(submit({ topq: 1 } as object)).toThrow(/topq: there is no such field/)
  expect(submit({ maxTokens: 0 })).toThrow(code('bad_argument'))
  expect(submit({ tokens: [1, 2] })).toThrow(code('bad_argument'))
  expect(submit({ stop: ['text'] })).toThrow(code('bad_argument'))
})

test('pages run out: later sequences wait and still finish', async () => {
  await withEngine({ modelDir: join(GOLDENS, 'v32_groups_yarn'), kvPages: 8 }, async (small) => {
    const specs = Array.from({ length: 12 }, (_, i) => ({
      tokens: prompt(100, 96, i + 1),
      cacheSalt: String(i),
      maxTokens: 60,
    }))
    const ends = await Promise.all(specs.map((spec) => collect(small, spec)))
    expect(ends.every(({ end }) => end.reason === 'length' || end.reason === 'stop_token')).toBe(true)
    expect(small.integrity()).toBe('')
    expect(small.stats().kvPagesUsed).toBe(0)
  })
})

test.each([{ kvPages: 1e9 }, { kvBytes: 2 ** 49 }])('more KV pages than there is memory: %o', async (options) => {
  const opened = openNativeEngine({ modelDir: join(GOLDENS, 'v32_groups_yarn'), tokenBytes: [], ...options })
  await expect(opened).rejects.toMatchObject({ code: 'engine_failed', message: expect.stringMatching(/KV pages; ask/) })
})

test('the context is what the pages hold, where that is less', async () => {
  await withEngine({ modelDir: MODEL_DIR, kvPages: 3 }, async (small) => {
    expect(small.info.contextLength).toBe(192)
    const spec = { ...GREEDY, ignoreEos: true, maxTokens: 1000 }
    const { end, ids } = await collect(small, { ...spec, tokens: prompt(150, vocab()) })
    expect([end.reason, ids.length]).toEqual(['length', 42])
    expect(() => small.submit({ ...spec, tokens: prompt(192, vocab()) }, () => {})).toThrow(/192/)
    expect(small.integrity()).toBe('')
  })
})

test('closing with work in flight ends it', async () => {
  const other = await openNativeEngine({ modelDir: MODEL_DIR, tokenBytes: [] })
  const running = collect(other, { tokens: prompt(3000, vocab(), 12), maxTokens: 500 })
  await new Promise((resolve) => setTimeout(resolve, 20))
  await other.close()
  expect((await running).end.reason).toBe('cancelled')
  expect(() => other.stats()).toThrow(EngineError)
})
