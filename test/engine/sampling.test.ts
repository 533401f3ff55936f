// Every setting of sampling through the real engine: each token against a slow twin fed with the model's own logits, alone
// and in a batch of 16; log-probabilities; min_tokens, ignore_eos and stop strings.
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EngineEvent, SampledLogprob, SequenceSpec } from '../../gpu-node/engine/engine.ts'
import { EngineError } from '../../gpu-node/engine/engine.ts'
import { type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
import { collect, GREEDY, prompt, withEngine } from './engines.ts'
import { GOLDENS, MODEL_DIR } from './golden.ts'
import { choose, logSoftmax, ranked } from './sampling_twin.ts'

let tokenizer: Tokenizer
let engine: NativeEngine
const vocab = () => engine.info.vocabSize
const eos = () => engine.info.eosTokenIds

beforeAll(async () => {
  tokenizer = await loadTokenizer(MODEL_DIR)
  engine = await openNativeEngine({ modelDir: MODEL_DIR, tokenBytes: tokenizer.tokenBytes })
})
afterAll(async () => {
  expect(engine.integrity()).toBe('')
  await engine.close()
})

/** Logits behind the prompt and behind each sampled token; padding rows left out. */
const logitRows = (of: NativeEngine, tokens: Int32Array, ids: readonly number[], allowed: number): number[][] => {
  const { logits } = of.evaluate(Int32Array.from([...tokens, ...ids.slice(0, -1)]), 512, false)
  const { vocabSize } = of.info
  return ids.map((_, i) => {
    const row = tokens.length - 1 + i
    return Array.from(logits.subarray(row * vocabSize, row * vocabSize + allowed))
  })
}

const expectTwin = (spec: SequenceSpec, ids: readonly number[], what: string): void => {
  const rows = logitRows(engine, spec.tokens, ids, tokenizer.vocabSize)
  const twin = rows.map((row, i) => choose(row, spec, ids.slice(0, i), eos()))
  expect(ids, what).toEqual(twin)
}

const SETTINGS: readonly Partial<SequenceSpec>[] = [
  { temperature: 1.4 },
  { temperature: 1, topP: 0.7 },
  { temperature: 1, topP: 0 },
  { temperature: 2, topK: 5 },
  { temperature: 2, minP: 0.1 },
  { temperature: 0, frequencyPenalty: 1.5 },
  { temperature: 0, presencePenalty: 2 },
  { temperature: 0, repetitionPenalty: 1.6 },
  { temperature: 1, frequencyPenalty: -1, presencePenalty: -0.5 },
  { temperature: 0, logitBias: { 40: 30, 41: 29.5, 42: -100 } },
  { temperature: 0, ignoreEos: true },
  { temperature: 1, minTokens: 10 },
  { temperature: 1.5, topK: 40, topP: 0.9, minP: 0.01, repetitionPenalty: 1.2, frequencyPenalty: 0.3 },
  { temperature: 1, topK: 1 },
  { temperature: 1, presencePenalty: 1, logitBias: { 300: 4, 7: 2 }, topLogprobs: 3 },
  { temperature: 0.6, topP: 0.95, repetitionPenalty: 0.8 },
]

const specOf = (setting: Partial<SequenceSpec>, i: number): SequenceSpec => ({
  ...{ ...GREEDY, tokens: prompt(15 + 9 * i, vocab(), i + 1), seed: BigInt(i), maxTokens: 24 },
  ...setting,
})

test('each token is the one the twin chooses, alone and in a batch of 16', async () => {
  const together = await Promise.all(
    SETTINGS.map((setting, i) => collect(engine, { ...specOf(setting, i), cacheSalt: `batch ${i}` })),
  )
  for (const [i, setting] of SETTINGS.entries()) {
    const spec = { ...specOf(setting, i), cacheSalt: `alone ${i}` }
    const { ids } = await collect(engine, spec)
    expectTwin(spec, ids, JSON.stringify(setting))
    expect(together[i]?.ids, JSON.stringify(setting)).toEqual(ids)
  }
})

test('speculation changes no token under penalties, bias and bans', async () => {
  const modelDir = join(GOLDENS, 'v32_mtp_copies')
  const [guessed, plain] = await Promise.all(
    [true, false].map((speculate) =>
      withEngine({ modelDir, speculate }, (of) =>
        Promise.all(
          SETTINGS.map(({ logitBias, ...setting }, i) =>
            collect(of, { ...setting, tokens: prompt(10 + 7 * i, 96, i), cacheSalt: String(i), maxTokens: 40 }),
          ),
        ),
      ),
    ),
  )
  expect(guessed).toEqual(plain)
})

const logprobsOf = (of: NativeEngine, spec: SequenceSpec): Promise<{ ids: number[]; logprobs: SampledLogprob[] }> =>
  new Promise((resolve) => {
    const ids: number[] = []
    const logprobs: SampledLogprob[] = []
    of.submit(spec, (events: readonly EngineEvent[]) => {
      for (const event of events) {
        if (event.kind === 'end') resolve({ ids, logprobs })
        if (event.kind !== 'tokens') continue
        ids.push(...event.ids)
        logprobs.push(...(event.logprobs ?? []))
      }
    })
  })

describe('log-probabilities', () => {
  test("are the model's own, before temperature, bias and penalties", async () => {
    const spec = specOf({ temperature: 2, topK: 50, logitBias: { 90: 5 }, frequencyPenalty: 1, topLogprobs: 20 }, 3)
    const { ids, logprobs } = await logprobsOf(engine, spec)
    expect(logprobs.length).toBe(ids.length)
    for (const [i, row] of logitRows(engine, spec.tokens, ids, tokenizer.vocabSize).entries()) {
      const all = logSoftmax(row)
      expect(logprobs[i]?.logprob).toBeCloseTo(all[ids[i] ?? -1] ?? 0, 9)
      expect(logprobs[i]?.top.map(({ id }) => id)).toEqual(ranked(row).slice(0, 20))
      for (const { id, logprob } of logprobs[i]?.top ?? []) expect(logprob).toBeCloseTo(all[id] ?? 0, 9)
    }
  })

  test('come with every token that speculation confirms', async () => {
    await withEngine({ modelDir: join(GOLDENS, 'v32_mtp_copies') }, async (of) => {
      const spec = { ...GREEDY, tokens: prompt(40, 96, 3), maxTokens: 60, topLogprobs: 2 }
      const { ids, logprobs } = await logprobsOf(of, spec)
      expect(of.stats().acceptedTokens).toBeGreaterThan(0)
      const rows = logitRows(of, spec.tokens, ids, 96)
      expect(logprobs.map(({ logprob }) => logprob.toFixed(6))).toEqual(
        rows.map((row, i) => (logSoftmax(row)[ids[i] ?? -1] ?? 0).toFixed(6)),
      )
    })
  })

  const scored = (of: NativeEngine, spec: Partial<SequenceSpec> & { tokens: Int32Array }) =>
    new Promise<{ scores: SampledLogprob[]; ids: number[]; cached: number }>((resolve) => {
      const [scores, ids]: [SampledLogprob[], number[]] = [[], []]
      of.submit({ ...GREEDY, topLogprobs: 4, promptLogprobs: true, ...spec }, (events) => {
        for (const event of events) {
          if (event.kind === 'prompt') scores.push(...event.logprobs)
          if (event.kind === 'tokens') ids.push(...event.ids)
          if (event.kind === 'end') resolve({ scores, ids, cached: event.cachedTokens })
        }
      })
    })

  test.each([
    ['more than a step holds, its pages cached', {}, 300],
    ['with drafts', { modelDir: join(GOLDENS, 'v32_mtp_copies') }, 150],
    ['of one token', {}, 1],
  ])("of a prompt's tokens: %s", async (_, options, length) => {
    await withEngine({ modelDir: MODEL_DIR, stepTokens: 48, ...options }, async (of) => {
      const tokens = prompt(length, 96, 5)
      const before = await collect(of, { tokens })
      const { scores, ids, cached } = await scored(of, { tokens })
      expect([ids, cached]).toEqual([before.ids, 0])
      expect(scores).toHaveLength(length - 1)
      const [first, ...rest] = tokens
      const rows = logitRows(of, Int32Array.of(first ?? 0), rest, of.info.vocabSize)
      for (const [i, row] of rows.entries()) {
        const all = logSoftmax(row)
        expect(scores[i]?.logprob).toBeCloseTo(all[rest[i] ?? -1] ?? 0, 9)
        expect(scores[i]?.top.map(({ id }) => id)).toEqual(ranked(row).slice(0, 4))
      }
      // What it computed is there for others, and the next that is scored computes all again.
      expect((await collect(of, { tokens })).cached).toBe(Math.floor((length - 1) / 64) * 64)
      expect((await scored(of, { tokens })).scores).toEqual(scores)
      expect(of.integrity()).toBe('')
    })
  })

  test("of a prompt's tokens need topLogprobs", () => {
    const submit = () => engine.submit({ ...specOf({}, 1), promptLogprobs: true }, () => {})
    expect(submit).toThrow(/promptLogprobs/)
  })

  test('are told only where asked, and none of others with 0', async () => {
    expect((await logprobsOf(engine, specOf({}, 1))).logprobs).toEqual([])
    const { ids, logprobs } = await logprobsOf(engine, specOf({ topLogprobs: 0 }, 1))
    expect(logprobs.map(({ top }) => top.length)).toEqual(ids.map(() => 0))
  })
})

describe('where a sequence ends', () => {
  const ask = async (): Promise<Int32Array> =>
    (await tokenizer.encode('<｜begin▁of▁sentence｜><｜User｜>What is the capital of France?<｜Assistant｜></think>'))
      .ids

  test('ignore_eos goes on to max_tokens; min_tokens puts the end off', async () => {
    const tokens = await ask()
    const plain = await collect(engine, { tokens, maxTokens: 60 })
    expect(plain.end.reason).toBe('stop_token')
    const on = await collect(engine, { tokens, maxTokens: 60, ignoreEos: true })
    expect(on.end).toMatchObject({ reason: 'length', sampledTokens: 60 })
    expect(on.ids.filter((id) => eos().includes(id))).toEqual([])
    const least = plain.ids.length + 5
    const later = await collect(engine, { tokens, maxTokens: 200, minTokens: least })
    expect(later.ids.slice(0, plain.ids.length - 1)).toEqual(plain.ids.slice(0, -1))
    expect(later.ids.findIndex((id) => eos().includes(id))).toBeGreaterThanOrEqual(least)
  })

  test('a stop string counts behind min_tokens only', async () => {
    const tokens = await ask()
    const stop = [new TextEncoder().encode('a')]
    const first = await collect(engine, { tokens, stop, maxTokens: 60, ignoreEos: true })
    expect(first.end.reason).toBe('stop_string')
    const minTokens = first.ids.length + 1
    const later = await collect(engine, { tokens, stop, maxTokens: 200, minTokens, ignoreEos: true })
    expect(later.ids.length).toBeGreaterThan(minTokens)
    const texts = later.ids.map((id) => Buffer.from(tokenizer.tokenBytes[id] ?? []).toString())
    expect(texts.findIndex((text, i) => i >= minTokens && text.includes('a'))).toBe(later.ids.length - 1)
    expect(later.end.reason).toBe('stop_string')
  })
})

test('values out of range are refused by name', () => {
  const wrong: [Partial<SequenceSpec>, RegExp][] = [
    [{ topK: -1 }, /topK/],
    [{ minP: 1.5 }, /minP/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty/],
    [{ topLogprobs: 21 }, /topLogprobs/],
    [{ logitBias: { x: 1 } }, /logitBias: x is no token id/],
    [{ logitBias: { 999999: 1 } }, /logitBias: 999999 is no token of the vocabulary/],
    [{ logitBias: { 1: Number.NaN } }, /logitBias/],
  ]
  for (const [setting, message] of wrong) {
    const submit = () => engine.submit(specOf(setting, 0), () => {})
    expect(submit).toThrow(EngineError)
    expect(submit).toThrow(message)
  }
})
