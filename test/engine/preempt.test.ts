// Sequences that lose their pages in mid-answer and compute again: every one gives, to the bit, what it gives alone, is told of
// once and costs the same.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EngineEvent, SampledLogprob, SequenceSpec } from '../../gpu-node/engine/engine.ts'
import type { NativeEngine } from '../../gpu-node/engine/native.ts'
import { GREEDY, prompt, withEngine } from './engines.ts'
import { GOLDENS, MODEL_DIR } from './golden.ts'

let scratch = ''
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'sparrow-preempt-'))
})
afterAll(() => rmSync(scratch, { recursive: true }))

interface Heard {
  readonly ids: number[]
  readonly logprobs: SampledLogprob[]
  /** Of the prompt's tokens. */
  readonly scores: SampledLogprob[]
  readonly starts: EngineEvent[]
  end: EngineEvent | undefined
}

/** Of one position: about half of the tokens, others at each. */
const maskAt = (position: number, vocab: number): Uint32Array =>
  Uint32Array.from({ length: Math.ceil(vocab / 32) }, (_, word) => Math.imul(position + 3, 0x9e3779b1 + word) >>> 0)

const hear = (engine: NativeEngine, spec: Partial<SequenceSpec> & { tokens: Int32Array }): Promise<Heard> =>
  new Promise((resolve) => {
    const heard: Heard = { ids: [], logprobs: [], scores: [], starts: [], end: undefined }
    // A mask comes late, early, or in time.
    const give = (position: number) => {
      if (spec.masked !== true) return
      const send = () => handle.mask(position, maskAt(position, engine.info.vocabSize))
      if (position % 3 === 0) setTimeout(send, position % 5)
      else send()
    }
    const handle = engine.submit({ ...GREEDY, ...spec }, (events) => {
      for (const event of events) {
        if (event.kind === 'start') heard.starts.push(event)
        else if (event.kind === 'prompt') heard.scores.push(...event.logprobs)
        else if (event.kind === 'end') resolve(Object.assign(heard, { end: event }))
        else {
          heard.ids.push(...event.ids)
          heard.logprobs.push(...(event.logprobs ?? []))
          give(heard.ids.length)
        }
      }
    })
    give(0)
  })

const specs = (vocab: number, count: number, maxTokens: number) =>
  Array.from({ length: count }, (_, i) => ({
    tokens: prompt(40 + 13 * i, Math.min(vocab, 90), i + 1),
    cacheSalt: `own ${i}`,
    account: `account ${i % 3}`,
    temperature: i % 4 === 0 ? 0 : 1,
    seed: BigInt(i),
    maxTokens,
    ignoreEos: i % 5 > 0,
    ...(i % 3 === 1 ? { topLogprobs: 3, promptLogprobs: i % 2 === 0 } : {}),
    ...(i % 4 === 2 ? { masked: true } : {}),
    ...(i % 6 === 3 ? { frequencyPenalty: 1, repetitionPenalty: 1.2 } : {}),
    ...(i % 6 === 5 ? { stop: [Buffer.from('7a7')], minTokens: 20 } : {}),
  }))

const tokenBytes = (vocab: number): Uint8Array[] =>
  Array.from({ length: vocab }, (_, id) => Buffer.from(String(id % 100)))

test.each([
  ['a batch of 16', 'v32_groups_yarn', 16, 8, 150],
  ['with drafts', 'v32_mtp_copies', 16, 8, 120],
  ['with a disk tier', 'v32_groups_yarn', 12, 8, 150],
])('the same before and after a preemption: %s', async (what, name, count, kvPages, maxTokens) => {
  const modelDir = join(GOLDENS, name)
  const vocab = await withEngine({ modelDir }, (engine) => engine.info.vocabSize)
  const bytes = tokenBytes(vocab)
  const alone = await withEngine({ modelDir, tokenBytes: bytes }, async (engine) => {
    const heard: Heard[] = []
    for (const spec of specs(vocab, count, maxTokens)) heard.push(await hear(engine, spec))
    expect(engine.stats().preemptions).toBe(0)
    return heard
  })
  const disk = what.endsWith('disk tier') ? { cacheDir: join(scratch, 'cache'), cacheBytes: 2 ** 24 } : {}
  await withEngine({ modelDir, tokenBytes: bytes, kvPages, ...disk }, async (engine) => {
    const together = await Promise.all(specs(vocab, count, maxTokens).map((spec) => hear(engine, spec)))
    for (const [i, heard] of together.entries()) expect(heard, `sequence ${i}`).toEqual(alone[i])
    const { preemptions, recomputedTokens, running, waiting, kvPagesUsed } = engine.stats()
    expect(preemptions).toBeGreaterThan(2)
    expect(recomputedTokens).toBeGreaterThan(preemptions)
    if (what.endsWith('disk tier')) expect(engine.stats().diskWrites).toBeGreaterThan(0)
    expect({ running, waiting, kvPagesUsed }).toEqual({ running: 0, waiting: 0, kvPagesUsed: 0 })
    expect(engine.integrity()).toBe('')
  })
})

test('the embedded model, long prompts and one cached beginning', async () => {
  const common = prompt(256, 2048, 77)
  const spec = (i: number) => ({
    tokens: Int32Array.from([...common, ...prompt(100 + 40 * i, 2048, i)]),
    ...{ temperature: 1, seed: BigInt(i), maxTokens: 250, ignoreEos: true, topLogprobs: 1 },
  })
  const indices = Array.from({ length: 6 }, (_, i) => i)
  const bare = ({ ids, logprobs }: Heard) => ({ ids, logprobs })
  const alone = await withEngine({ modelDir: MODEL_DIR }, async (engine) => {
    const heard: Heard[] = []
    for (const i of indices) heard.push(await hear(engine, { ...spec(i), cacheSalt: `own ${i}` }))
    return heard
  })
  await withEngine({ modelDir: MODEL_DIR, kvPages: 18 }, async (engine) => {
    let together: Heard[] = []
    // Where this thread is held up, the first may have ended before the last come: then once more.
    for (let tries = 0; tries < 50 && engine.stats().preemptions === 0; tries++) {
      together = await Promise.all(indices.map((i) => hear(engine, spec(i))))
      expect(together.map(bare)).toEqual(alone.map(bare))
    }
    expect(engine.stats().preemptions).toBeGreaterThan(0)
    for (const { starts, end } of together) {
      expect(starts).toHaveLength(1)
      const { promptTokens, cachedTokens } = starts[0] as Extract<EngineEvent, { kind: 'start' }>
      expect(end).toMatchObject({ promptTokens, cachedTokens, computedTokens: promptTokens - cachedTokens })
    }
  })
})
