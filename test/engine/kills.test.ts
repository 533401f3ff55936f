// Ten thousand sequences, nearly all of them cancelled at a random moment: queued, with pages on their way from disk, in
// prefill, in decode, waiting for a mask, preempted. No page, no slot and no sequence is lost.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { NativeEngine } from '../../gpu-node/engine/native.ts'
import { collect, GREEDY, prompt, withEngine } from './engines.ts'
import { GOLDENS } from './golden.ts'

const KILLS = 10_000
const AT_ONCE = 40

/** A reproducible dice: whole numbers below `sides`. */
const dice = (seed: number) => {
  let state = seed
  return (sides: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * sides)
  }
}

type Moment = 'at once' | 'soon' | 'started' | 'decode' | 'later' | 'deadline' | 'never'
const MOMENTS: readonly Moment[] = ['at once', 'soon', 'soon', 'started', 'decode', 'decode', 'later', 'deadline']

interface Tally {
  ends: number
  readonly reasons: Map<string, number>
  /** Ends of sequences that had got so far. */
  queued: number
  prefilling: number
  decoding: number
}

const oneLife = (engine: NativeEngine, roll: (sides: number) => number, tally: Tally): Promise<void> =>
  new Promise((resolve) => {
    const when = roll(100) === 0 ? 'never' : (MOMENTS[roll(MOMENTS.length)] as Moment)
    const masked = roll(4) === 0
    const prefix = prompt(64 * (1 + roll(4)), 90, 1 + roll(12))
    const tokens = Int32Array.from([...prefix, ...prompt(1 + roll(60), 90, 100 + roll(1000))])
    const tokensBefore = 1 + roll(40)
    let [started, seen] = [false, 0]
    const handle = engine.submit(
      {
        ...{ ...GREEDY, tokens, masked, temperature: 1, seed: BigInt(roll(1000)), maxTokens: 1 + roll(200) },
        ...{ account: `account ${roll(5)}`, priority: roll(5) - 2, ignoreEos: true },
        ...(when === 'deadline' ? { deadlineMs: 1 + roll(20) } : {}),
      },
      (events) => {
        for (const event of events) {
          if (event.kind === 'start') started = true
          if (event.kind === 'tokens') seen += event.ids.length
          // A mask that never comes is one of the moments, too.
          if (event.kind === 'tokens' && masked && roll(10) > 0) handle.mask(seen, new Uint32Array())
          if (event.kind === 'end') {
            tally.ends++
            tally.reasons.set(event.reason, (tally.reasons.get(event.reason) ?? 0) + 1)
            tally[seen > 0 ? 'decoding' : started ? 'prefilling' : 'queued']++
            return resolve()
          }
        }
        if (when === 'started' || (when === 'decode' && seen >= tokensBefore)) handle.cancel()
      },
    )
    if (masked && roll(10) > 0) handle.mask(0, new Uint32Array())
    if (when === 'at once') handle.cancel()
    if (when === 'soon') setImmediate(() => handle.cancel())
    // Whatever waits for a mask that nobody sends ends here.
    setTimeout(() => handle.cancel(), when === 'later' ? roll(30) : 400)
  })

test('ten thousand random kills lose no page, no slot and no sequence', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'sparrow-kills-'))
  const disk = { cacheDir: join(scratch, 'cache'), cacheBytes: 2 ** 22 }
  try {
    await withEngine({ modelDir: join(GOLDENS, 'v32_groups_yarn'), kvPages: 24, ...disk }, async (engine) => {
      const roll = dice(5)
      const tally: Tally = { ends: 0, reasons: new Map(), queued: 0, prefilling: 0, decoding: 0 }
      let left = KILLS
      const lives = async () => {
        while (left-- > 0) await oneLife(engine, roll, tally)
      }
      await Promise.all(Array.from({ length: AT_ONCE }, lives))
      expect(engine.integrity()).toBe('')
      const stats = engine.stats()
      expect(stats).toMatchObject({ running: 0, waiting: 0, kvPagesUsed: 0 })
      expect(tally.ends).toBe(KILLS)
      // Every moment was really met.
      for (const met of [tally.queued, tally.prefilling, tally.decoding]) expect(met).toBeGreaterThan(200)
      for (const met of [stats.preemptions, stats.diskReads, stats.deadlines]) expect(met).toBeGreaterThan(20)
      expect(tally.reasons.get('cancelled')).toBeGreaterThan(KILLS / 2)
      const after = await collect(engine, { tokens: prompt(300, 90, 9), maxTokens: 150, ignoreEos: true })
      expect(after.end).toMatchObject({ reason: 'length', sampledTokens: 150 })
    })
  } finally {
    rmSync(scratch, { recursive: true })
  }
})
