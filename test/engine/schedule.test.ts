// Who runs when: fair shares between accounts, priorities, deadlines, and a long prompt beside running streams.
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { SequenceSpec } from '../../gpu-node/engine/engine.ts'
import type { NativeEngine } from '../../gpu-node/engine/native.ts'
import { collect, GREEDY, prompt, withEngine } from './engines.ts'
import { GOLDENS, MODEL_DIR } from './golden.ts'

const SMALL = join(GOLDENS, 'v32_groups_yarn')

/** Names in the order in which they began to run, one at a time; all of them wait before the first begins. */
const orderOf = async (engine: NativeEngine, specs: readonly (Partial<SequenceSpec> & { name: string })[]) => {
  const order: string[] = []
  // What runs first waits for a mask, and keeps the others waiting until all are there.
  const first = { ...GREEDY, tokens: prompt(300, 90, 50), cacheSalt: 'gate', account: 'gate', maxTokens: 20 }
  const gate = engine.submit({ ...first, masked: true }, () => {})
  const all = Promise.all(
    specs.map(
      ({ name, ...spec }, i) =>
        new Promise<void>((resolve) => {
          const tokens = prompt(60, 90, i + 1)
          engine.submit({ ...GREEDY, tokens, maxTokens: 8, ignoreEos: true, ...spec }, (events) => {
            for (const event of events) {
              if (event.kind === 'start') order.push(name)
              if (event.kind === 'end') resolve()
            }
          })
        }),
    ),
  )
  gate.cancel()
  await all
  return order
}

const oneByOne = <T>(work: (engine: NativeEngine) => Promise<T>) => withEngine({ modelDir: SMALL, maxRunning: 1 }, work)

test('an account that fills the queue does not hold up another', async () => {
  const many = Array.from({ length: 8 }, () => ({ name: 'many', account: 'many' }))
  const few = Array.from({ length: 3 }, () => ({ name: 'few', account: 'few' }))
  const order = await oneByOne((engine) => orderOf(engine, [...many, ...few]))
  expect(order.slice(0, 6).filter((name) => name === 'few')).toHaveLength(3)
})

test('shares are of tokens, not of requests', async () => {
  const long = Array.from({ length: 6 }, () => ({ name: 'long', account: 'long', maxTokens: 100 }))
  const short = Array.from({ length: 6 }, () => ({ name: 'short', account: 'short', maxTokens: 2 }))
  const order = await oneByOne((engine) => orderOf(engine, [...long, ...short]))
  expect(order.slice(0, 5).filter((name) => name === 'short').length).toBeGreaterThanOrEqual(3)
})

test('an account that was idle has no credit for it', async () => {
  await withEngine({ modelDir: SMALL, maxRunning: 2 }, async (engine) => {
    // Waits for a mask all the time, so that nobody's count begins anew.
    const keeper = engine.submit(
      { ...GREEDY, tokens: prompt(60, 90, 99), maxTokens: 8, account: 'idle', masked: true },
      () => {},
    )
    const busy = (i: number) => ({ name: `busy ${i}`, account: 'busy' })
    await orderOf(engine, [busy(0), busy(1), { name: 'idle', account: 'idle', maxTokens: 1 }])
    // Served less before, it now takes turns and does not go first three times.
    const order = await orderOf(engine, [
      ...[busy(0), busy(1), busy(2)],
      ...[0, 1, 2].map((i) => ({ name: `idle ${i}`, account: 'idle' })),
    ])
    expect(order.slice(0, 4).filter((name) => name.startsWith('busy'))).toHaveLength(2)
    keeper.cancel()
  })
})

test('the higher priority goes first, whoever asks', async () => {
  const order = await oneByOne((engine) =>
    orderOf(engine, [
      { name: 'flex', priority: -1, account: 'a' },
      { name: 'plain', account: 'b' },
      { name: 'high', priority: 2, account: 'b' },
      { name: 'plain', account: 'c' },
    ]),
  )
  expect(order).toEqual(['high', 'plain', 'plain', 'flex'])
})

test('of two that run, the one of lower priority gives its pages back', async () => {
  await withEngine({ modelDir: SMALL, kvPages: 5 }, async (engine) => {
    let ends: string[] = []
    const run = async (name: string, priority: number) => {
      const tokens = prompt(60, 90, priority + 5)
      await collect(engine, { tokens, priority, maxTokens: 200, ignoreEos: true })
      ends.push(name)
    }
    // Where this thread is held up between the two, the first has ended before the second comes: then once more.
    for (let tries = 0; tries < 10 && engine.stats().preemptions === 0; tries++) {
      ends = []
      await Promise.all([run('low', -1), run('high', 1)])
    }
    expect(engine.stats().preemptions).toBeGreaterThan(0)
    expect(ends).toEqual(['high', 'low'])
  })
})

test('a deadline ends what runs, with what it has, and what still waits, with nothing', async () => {
  await oneByOne(async (engine) => {
    const endless = { tokens: prompt(40, 90, 1), maxTokens: 470, ignoreEos: true, masked: true }
    const [ran, waited] = await Promise.all([
      collect(engine, { ...endless, deadlineMs: 80 }),
      collect(engine, { ...endless, deadlineMs: 20 }),
    ])
    expect(ran.end).toMatchObject({ reason: 'deadline', computedTokens: 40, sampledTokens: 0 })
    expect(waited.end).toMatchObject({ reason: 'deadline', computedTokens: 0, sampledTokens: 0, cachedTokens: 0 })
    expect(engine.stats()).toMatchObject({ running: 0, waiting: 0, kvPagesUsed: 0, deadlines: 2, admitted: 1 })
  })
})

test('streams go on beside a long prompt, whose part of each step is small then', async () => {
  await withEngine({ modelDir: MODEL_DIR, stepTokens: 512 }, async (engine) => {
    let tokensDuring = 0
    let prefilling = false
    const stream = new Promise<void>((resolve) => {
      const spec = { ...GREEDY, tokens: prompt(20, 2048, 1), maxTokens: 2500, ignoreEos: true }
      const handle = engine.submit(spec, (events) => {
        for (const event of events) {
          if (event.kind === 'tokens' && prefilling) tokensDuring += event.ids.length
          if (event.kind === 'end') resolve()
        }
        if (!prefilling && tokensDuring > 0) handle.cancel()
      })
    })
    const steps = engine.stats().steps
    prefilling = true
    const long = await collect(engine, { tokens: prompt(1500, 2048, 2), cacheSalt: 'long', maxTokens: 1 })
    prefilling = false
    await stream
    expect(long.end.computedTokens).toBe(1500)
    // Without streams it would be three steps.
    expect(engine.stats().steps - steps).toBeGreaterThan(12)
    expect(tokensDuring).toBeGreaterThan(12)
  })
})
