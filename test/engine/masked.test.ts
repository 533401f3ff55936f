// Sequences that wait for masks: only allowed tokens come, nobody else waits, nothing is lost when one ends while it waits.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EngineEvent, SequenceHandle, SequenceSpec } from '../../gpu-node/engine/engine.ts'
import { type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { loadTokenizer } from '../../gpu-node/tokenizer.ts'
import { collect, GREEDY, type Outcome, prompt } from './engines.ts'
import { MODEL_DIR } from './golden.ts'

let engine: NativeEngine

beforeAll(async () => {
  const { tokenBytes } = await loadTokenizer(MODEL_DIR)
  engine = await openNativeEngine({ modelDir: MODEL_DIR, tokenBytes })
})
afterAll(async () => {
  expect(engine.integrity()).toBe('')
  expect(engine.stats()).toMatchObject({ running: 0, waiting: 0, kvPagesUsed: 0 })
  await engine.close()
})

/** A slow machine may need more than a second for what takes a moment. */
const WAIT = { timeout: 30_000 }

const EVERY = new Uint32Array()
const only = (...ids: number[]): Uint32Array => {
  const words = new Uint32Array(Math.ceil(engine.info.vocabSize / 32))
  for (const id of ids) words[id >> 5] = (words[id >> 5] ?? 0) | (1 << (id & 31))
  return words
}

/** Collects a masked sequence; `maskAt` gives each position's mask after `ms`. */
const masked = (
  spec: Partial<SequenceSpec> & { tokens: Int32Array },
  maskAt: (position: number) => Uint32Array,
  ms = 0,
): Promise<Outcome> =>
  new Promise((resolve) => {
    const ids: number[] = []
    let cached = 0
    const give = () => setTimeout(() => handle.mask(ids.length, maskAt(ids.length)), ms)
    const take = (event: EngineEvent): void => {
      if (event.kind === 'start') cached = event.cachedTokens
      else if (event.kind === 'tokens') ids.push(...event.ids)
      else if (event.kind === 'end') resolve({ ids, cached, end: event })
      if (event.kind === 'tokens') give()
    }
    const handle = engine.submit({ ...GREEDY, ...spec, masked: true }, (events) => events.forEach(take))
    give()
  })

test('only allowed tokens are sampled, greedy or not', async () => {
  const allowed = [300, 301, 302, 700]
  for (const temperature of [0, 2]) {
    const { ids, end } = await masked({ tokens: prompt(80, 2048, 1), temperature, maxTokens: 20 }, () =>
      only(...allowed),
    )
    expect(end.reason).toBe('length')
    expect(ids).toHaveLength(20)
    expect(ids.every((id) => allowed.includes(id))).toBe(true)
  }
})

test('a mask may force the answer, end token included', async () => {
  const forced = [400, 500, 600, 1]
  const { ids, end } = await masked({ tokens: prompt(70, 2048, 2), temperature: 1 }, (at) => only(forced[at] ?? 2))
  expect(ids).toEqual(forced)
  expect(end.reason).toBe('stop_token')
})

test('masks that allow everything change nothing, whenever they come', async () => {
  const spec = { tokens: prompt(150, 2048, 3), temperature: 1, seed: 5n, maxTokens: 15 }
  const plain = await collect(engine, spec)
  const together = await Promise.all([0, 0, 3, 9].map((ms) => masked(spec, () => EVERY, ms)))
  for (const outcome of together) expect(outcome.ids).toEqual(plain.ids)
})

test('others do not wait for a mask that does not come', async () => {
  const spec = { tokens: prompt(60, 2048, 4), maxTokens: 4 }
  let handle: SequenceHandle | undefined
  const ended = new Promise<string>((resolve) => {
    handle = engine.submit({ ...GREEDY, ...spec, masked: true }, (events) => {
      for (const event of events) if (event.kind === 'end') resolve(event.reason)
    })
  })
  const { ids } = await collect(engine, { ...spec, maxTokens: 24 })
  expect(ids.length).toBeGreaterThan(1)
  // With nothing else to do the engine sleeps: no step is made while the mask is missing.
  await expect.poll(() => engine.stats().busy, WAIT).toBe(0)
  const { steps } = engine.stats()
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(engine.stats().steps).toBe(steps)
  handle?.mask(7, EVERY)
  handle?.mask(-1, EVERY)
  await new Promise((resolve) => setTimeout(resolve, 30))
  expect(engine.stats().steps).toBe(steps)
  handle?.cancel()
  expect(await ended).toBe('cancelled')
})

test('a mask that came before its logits counts', async () => {
  const spec = { tokens: prompt(900, 2048, 6), cacheSalt: 'early', maxTokens: 1 }
  const outcome = await new Promise<EngineEvent>((resolve) => {
    const handle = engine.submit({ ...GREEDY, ...spec, masked: true }, (events) => {
      for (const event of events) if (event.kind === 'end') resolve(event)
    })
    handle.mask(0, only(321))
  })
  expect(outcome).toMatchObject({ reason: 'length', sampledTokens: 1 })
})

test('a mask that allows nothing ends the sequence with an error, and only that one', async () => {
  const [none, other] = await Promise.all([
    masked({ tokens: prompt(40, 2048, 7) }, () => only()),
    collect(engine, { tokens: prompt(40, 2048, 8) }),
  ])
  expect(none.end.reason).toBe('error')
  expect(other.end.reason).not.toBe('error')
})

test('a mask shorter than the vocabulary forbids what it does not hold', async () => {
  const words = only(31, 40).slice(0, 1)
  const { ids } = await masked({ tokens: prompt(40, 2048, 9), temperature: 1, maxTokens: 3 }, () => words)
  expect(ids).toEqual([31, 31, 31])
})

test('an engine whose only sequence waits for its mask has nothing to do, and has when the mask is there', async () => {
  await expect.poll(() => engine.stats(), WAIT).toMatchObject({ busy: 0, running: 0 })
  // So long that it is still at work when the next line asks, however late that comes.
  const atWork = engine.submit({ ...GREEDY, ignoreEos: true, maxTokens: 3900, tokens: prompt(10, 90) }, () => {})
  expect(engine.stats().busy).toBe(1)
  atWork.cancel()
  await expect.poll(() => engine.stats(), WAIT).toMatchObject({ busy: 0, running: 0 })
  let ended = false
  const tokens = prompt(200, engine.info.vocabSize, 77)
  const handle = engine.submit({ ...GREEDY, maxTokens: 1, tokens, masked: true }, (events) => {
    ended = events.some(({ kind }) => kind === 'end')
  })
  await expect.poll(() => engine.stats(), WAIT).toMatchObject({ busy: 0, running: 1 })
  handle.mask(0, EVERY)
  await expect.poll(() => ended, WAIT).toBe(true)
  await expect.poll(() => engine.stats(), WAIT).toMatchObject({ busy: 0, running: 0 })
})
