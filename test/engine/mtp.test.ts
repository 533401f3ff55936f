// Speculative decoding with the checkpoint's MTP layer: the same answers, events and books as without it, in fewer steps.
// v32_mtp_copies is rigged so that its guesses are often right and often wrong.
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { SequenceSpec } from '../../gpu-node/engine/engine.ts'
import type { NativeEngine } from '../../gpu-node/engine/native.ts'
import { BF16, collect, GREEDY, type Outcome, prompt, runnableIsas, withEngine } from './engines.ts'
import { GOLDENS, readGolden } from './golden.ts'

const COPIES = join(GOLDENS, 'v32_mtp_copies')
const VOCAB = 96
/** Every token is a character of its own. */
const LETTERS = Array.from({ length: VOCAB }, (_, i) => Uint8Array.of(32 + i))

/** FP8 pages are the BF16 backend's. */
const fp8Runs = (await runnableIsas(COPIES, BF16)).length > 0

type Spec = Partial<SequenceSpec> & { tokens: Int32Array }
type Options = Partial<Parameters<typeof withEngine>[0]>

/** The same work with and without speculation, on fresh engines; the books of both must close. */
const both = async <T>(work: (engine: NativeEngine) => Promise<T>, options: Options = {}): Promise<[T, T]> => {
  const run = (speculate: boolean) =>
    withEngine({ modelDir: COPIES, tokenBytes: LETTERS, speculate, ...options }, async (engine) => {
      const result = await work(engine)
      const { kvPagesUsed, draftTokens, acceptedTokens } = engine.stats()
      expect(engine.info.speculates).toBe(speculate)
      expect(kvPagesUsed).toBe(0)
      expect(engine.integrity()).toBe('')
      expect(draftTokens > 0).toBe(speculate)
      expect(acceptedTokens).toBeLessThanOrEqual(draftTokens)
      return result
    })
  return [await run(true), await run(false)]
}

const allAtOnce =
  (specs: readonly Spec[]) =>
  (engine: NativeEngine): Promise<Outcome[]> =>
    Promise.all(specs.map((spec) => collect(engine, spec)))

const SETTINGS = [
  { temperature: 0, topP: 1 },
  { temperature: 0.7, topP: 0.9 },
  { temperature: 1, topP: 1 },
  { temperature: 3, topP: 1 },
]

describe('the same answers', () => {
  test.each(SETTINGS)('several at once, %o', async (setting) => {
    const specs = Array.from({ length: 7 }, (_, i) => ({
      tokens: prompt(5 + i * 23, VOCAB, i + 1),
      ...{ cacheSalt: String(i), maxTokens: 60 + i, seed: BigInt(i), ...setting },
    }))
    const [guessed, plain] = await both(async (engine) => {
      const outcomes = await allAtOnce(specs)(engine)
      const { draftTokens, acceptedTokens } = engine.stats()
      if (draftTokens > 0 && setting.temperature <= 1) {
        expect(acceptedTokens).toBeGreaterThan(draftTokens / 20)
        expect(acceptedTokens).toBeLessThan(draftTokens)
      }
      return outcomes
    })
    expect(guessed).toEqual(plain)
    expect(guessed.map(({ ids, end }) => ids.length === end.sampledTokens)).not.toContain(false)
  })

  // With others beside it, how many steps a prompt takes depends on how long they last.
  test('one alone takes fewer steps', async () => {
    const steps: number[] = []
    const [guessed, plain] = await both(async (engine) => {
      const outcomes = await allAtOnce([{ tokens: prompt(60, VOCAB, 1), maxTokens: 60 }])(engine)
      steps.push(engine.stats().steps)
      return outcomes
    })
    expect(guessed).toEqual(plain)
    expect(steps[0]).toBeLessThan(steps[1] ?? 0)
  })

  test('on every instruction set', async () => {
    const specs = [1, 2, 3].map((i) => ({ tokens: prompt(30 * i, VOCAB, i + 20), cacheSalt: String(i), maxTokens: 40 }))
    for (const isa of await runnableIsas(COPIES)) {
      const [guessed, plain] = await both(allAtOnce(specs), { isa })
      expect(guessed, isa).toEqual(plain)
    }
  })

  test.skipIf(!fp8Runs)('with FP8 pages', async () => {
    const specs = [1, 2].map((i) => ({ tokens: prompt(70 * i, VOCAB, i + 2), cacheSalt: String(i), maxTokens: 50 }))
    const [guessed, plain] = await both(allAtOnce(specs), { kv: 'fp8' })
    expect(guessed).toEqual(plain)
  })

  test('without an indexer, FP8, with its own embedding and head', async () => {
    const specs = [1, 2].map((i) => ({ tokens: prompt(60 * i, VOCAB, i), cacheSalt: String(i), maxTokens: 50 }))
    const [guessed, plain] = await both(allAtOnce(specs), { modelDir: join(GOLDENS, 'v3_mtp_fp8') })
    expect(guessed).toEqual(plain)
  })

  test('any number of tokens asked for, odd and even, and the end of the context', async () => {
    const short = [1, 2, 3, 4, 5, 16, 17].map((maxTokens) => ({ tokens: prompt(20, VOCAB, 2), maxTokens }))
    const atTheEnd = [500, 505, 509, 510, 511].map((length) => ({ tokens: prompt(length, VOCAB, 2), maxTokens: 100 }))
    // Whether one finds a page that another of the same prompt just filled depends on how long steps last.
    const specs = [...short, ...atTheEnd].map((spec, i) => ({ ...spec, cacheSalt: String(i) }))
    const [guessed, plain] = await both(allAtOnce(specs))
    expect(guessed).toEqual(plain)
    expect(guessed.slice(0, 7).map(({ ids }) => ids.length)).toEqual([1, 2, 3, 4, 5, 16, 17])
    expect(guessed.slice(7).map(({ ids }) => ids.length)).toEqual([12, 7, 3, 2, 1])
  })

  test('stop strings, wherever they fall between two guesses', async () => {
    const tokens = prompt(40, VOCAB, 2)
    const long = { maxTokens: 60, ignoreEos: true }
    const text = (ids: readonly number[]) => String.fromCharCode(...ids.map((id) => 32 + id))
    const [whole] = await withEngine({ modelDir: COPIES, tokenBytes: LETTERS }, allAtOnce([{ tokens, ...long }]))
    const answer = text(whole?.ids ?? [])
    expect(answer.length).toBeGreaterThan(30)
    const specs = Array.from({ length: 12 }, (_, i) => ({
      ...{ tokens, ...long, cacheSalt: String(i) },
      stop: [Buffer.from(answer.slice(i + 2, i + 4 + (i % 3)), 'latin1')],
    }))
    const [guessed, plain] = await both(allAtOnce(specs))
    expect(guessed).toEqual(plain)
    expect(guessed.map(({ end }) => end.reason)).toContain('stop_string')
  })
})

test('the cached prefix: same hits, same answers, and pages that a conversation left behind', async () => {
  const work = async (engine: NativeEngine): Promise<Outcome[]> => {
    const outcomes: Outcome[] = []
    let tokens = prompt(150, VOCAB, 3)
    for (let turn = 0; turn < 3; turn++) {
      const sampled = { temperature: 0.7, seed: BigInt(turn + 5), maxTokens: 77, ignoreEos: true }
      outcomes.push(await collect(engine, { tokens, ...sampled }))
      outcomes.push(await collect(engine, { tokens, ...sampled, cacheSalt: `cold ${turn}` }))
      tokens = Int32Array.from([...tokens, ...(outcomes.at(-1)?.ids ?? []), ...prompt(9, VOCAB, turn + 5)])
    }
    return outcomes
  }
  const [guessed, plain] = await both(work)
  expect(guessed).toEqual(plain)
  // 150, 236 and 322 tokens of prompt, the whole pages of which the turns before have left.
  expect([0, 2, 4].map((turn) => guessed[turn]?.cached)).toEqual([0, 192, 256])
  for (const turn of [0, 2, 4]) expect(guessed[turn]?.ids).toEqual(guessed[turn + 1]?.ids)
})

test('guesses are as good after a cached prefix as after a computed one', async () => {
  await withEngine({ modelDir: COPIES }, async (engine) => {
    const right = async (spec: Spec): Promise<number> => {
      const before = engine.stats().acceptedTokens
      await collect(engine, spec)
      return engine.stats().acceptedTokens - before
    }
    for (const seed of [2, 3, 4, 5, 6, 7, 8, 9]) {
      const tokens = prompt(200, VOCAB, seed)
      // Ends with its prefill: what it leaves in the cache must still be complete.
      await collect(engine, { tokens, maxTokens: 1, cacheSalt: `warm ${seed}` })
      const spec = { tokens, maxTokens: 200, temperature: 1, seed: BigInt(seed) }
      const warm = await right({ ...spec, cacheSalt: `warm ${seed}` })
      expect(warm).toBe(await right({ ...spec, cacheSalt: `cold ${seed}` }))
    }
    expect(engine.stats().cachedTokens).toBe(8 * 192)
  })
})

test('guesses are as good behind an answer that waited for masks', async () => {
  await withEngine({ modelDir: COPIES }, async (engine) => {
    const answer = (spec: Spec, masked: boolean): Promise<number[]> =>
      new Promise((resolve) => {
        const ids: number[] = []
        const handle = engine.submit({ ...GREEDY, ...spec, masked }, (events) => {
          for (const event of events) {
            if (event.kind === 'end') resolve(ids)
            if (event.kind !== 'tokens') continue
            ids.push(...event.ids)
            if (masked) handle.mask(ids.length, new Uint32Array())
          }
        })
        if (masked) handle.mask(0, new Uint32Array())
      })
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const [tokens, sampled] = [prompt(30, VOCAB, seed), { temperature: 1, seed: BigInt(seed), ignoreEos: true }]
      const right: number[] = []
      for (const masked of [true, false]) {
        const spec = { ...sampled, cacheSalt: `${seed} ${masked}`, maxTokens: 200 }
        const ids = await answer({ tokens, ...spec }, masked)
        const before = engine.stats()
        const next = Int32Array.from([...tokens, ...ids, ...prompt(5, VOCAB, seed + 50)])
        expect((await collect(engine, { tokens: next, ...spec })).cached).toBe(192)
        right.push(engine.stats().acceptedTokens - before.acceptedTokens)
      }
      expect(right[0]).toBe(right[1])
    }
  })
})

test('pages that just suffice: a guess never needs one more', async () => {
  for (const [length, maxTokens] of [
    [64, 64],
    [63, 65],
    [1, 127],
    [100, 28],
  ] as const) {
    const specs = [1, 2, 3].map((i) => ({
      ...{ tokens: prompt(length, VOCAB, i + 1), maxTokens, cacheSalt: String(i), temperature: 0.7, seed: BigInt(i) },
    }))
    const [guessed, plain] = await both(allAtOnce(specs), { kvPages: 2 })
    expect(guessed).toEqual(plain)
  }
})

test('cancelling in the middle of guesses: what was told is a beginning of the answer', async () => {
  const spec = { ...GREEDY, tokens: prompt(30, VOCAB, 3), temperature: 0.7, maxTokens: 400 }
  const [guessed, plain] = await both(async (engine) => {
    const whole = await collect(engine, spec)
    const cut = await new Promise<number[]>((resolve) => {
      const ids: number[] = []
      const handle = engine.submit({ ...spec, cacheSalt: 'cut' }, (events) => {
        for (const event of events) {
          if (event.kind === 'tokens') ids.push(...event.ids)
          if (event.kind === 'tokens' && ids.length >= 5) handle.cancel()
          if (event.kind === 'end') {
            expect(event.sampledTokens).toBe(ids.length)
            resolve(ids)
          }
        }
      })
    })
    expect(cut).toEqual(whole.ids.slice(0, cut.length))
    return whole
  })
  expect(guessed).toEqual(plain)
})

test('the guesses are the reference model: same bits in chunks of any size', async () => {
  for (const name of ['v32_mtp_copies', 'v3_mtp_fp8']) {
    const ids = Int32Array.from(readGolden(name).get('ids')?.data ?? [])
    await withEngine({ modelDir: join(GOLDENS, name) }, (engine) => {
      const draft = (chunk: number) =>
        engine.evaluate(ids, chunk, true).taps.find((tap) => tap.name === 'draft_logits')?.data
      const whole = draft(1000)
      expect(whole?.length).toBe((ids.length - 1) * VOCAB)
      for (const chunk of [1, 7, 64]) expect(draft(chunk), `${name} ${chunk}`).toEqual(whole)
    })
  }
})
