// The prefix cache over a restart: same tokens from disk, memory or none; what is damaged, foreign or another's is a miss.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { NativeEngine } from '../../gpu-node/engine/native.ts'
import { collect, GREEDY, prompt, withEngine } from './engines.ts'
import { GOLDENS, MODEL_DIR } from './golden.ts'

const SMALL = join(GOLDENS, 'v32_groups_yarn')
const MTP = join(GOLDENS, 'v32_mtp_copies')
const BYTES = 64 * 2 ** 20

let scratch = ''
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'sparrow-disk-'))
})
afterEach(() => rmSync(scratch, { recursive: true }))

const cached = (options: { modelDir: string; kvPages?: number; isa?: string; cacheBytes?: number }) => ({
  ...{ cacheDir: join(scratch, 'cache'), cacheBytes: BYTES },
  ...options,
})

const written = async (engine: NativeEngine): Promise<void> => {
  for (let i = 0; engine.stats().diskPending > 0; i++) {
    if (i > 10_000) throw new Error('the disk never catches up')
    await sleep(1)
  }
}

test.each([
  [MODEL_DIR, 600],
  [SMALL, 200],
  [MTP, 200],
])('same tokens from disk, memory or none: %s', async (modelDir, length) => {
  const sampled = { temperature: 1, seed: 9n, maxTokens: 30 }
  const whole = Math.floor((length - 1) / 64)
  const tokens = (engine: NativeEngine) => prompt(length, Math.min(engine.info.vocabSize, 90), 4)
  const none = await withEngine({ modelDir }, (engine) => collect(engine, { ...sampled, tokens: tokens(engine) }))
  await withEngine(cached({ modelDir }), async (engine) => {
    const cold = await collect(engine, { ...sampled, tokens: tokens(engine) })
    const warm = await collect(engine, { ...sampled, tokens: tokens(engine) })
    expect([cold.cached, warm.cached]).toEqual([0, whole * 64])
    expect([cold.ids, warm.ids]).toEqual([none.ids, none.ids])
    expect(engine.stats()).toMatchObject({ memoryHits: whole, diskHits: 0, diskReads: 0 })
  })
  await withEngine(cached({ modelDir }), async (engine) => {
    const fromDisk = await collect(engine, { ...sampled, tokens: tokens(engine) })
    expect(fromDisk.cached).toBe(whole * 64)
    expect(fromDisk.end.computedTokens).toBe(length - whole * 64)
    expect(fromDisk.ids).toEqual(none.ids)
    expect(engine.stats()).toMatchObject({ memoryHits: 0, diskHits: whole, diskReads: whole, diskCorrupt: 0 })
    const again = await collect(engine, { ...sampled, tokens: tokens(engine) })
    expect(again.ids).toEqual(none.ids)
    expect(engine.stats()).toMatchObject({ memoryHits: whole, diskHits: whole, diskReads: whole })
    expect(engine.integrity()).toBe('')
    expect(engine.stats().kvPagesUsed).toBe(0)
  })
})

test('an answer is found again as the beginning of the next turn', async () => {
  const first = prompt(100, 90, 5)
  const { ids } = await withEngine(cached({ modelDir: SMALL }), (engine) =>
    collect(engine, { tokens: first, maxTokens: 100, temperature: 2 }),
  )
  const next = Int32Array.from([...first, ...ids, 7])
  const whole = Math.floor((first.length + ids.length - 1) / 64) * 64
  await withEngine(cached({ modelDir: SMALL }), async (engine) => {
    expect((await collect(engine, { tokens: next })).cached).toBe(whole)
  })
})

test('another salt, model, instruction set or layout finds nothing', async () => {
  const tokens = prompt(200, 90, 6)
  await withEngine(cached({ modelDir: SMALL }), (engine) => collect(engine, { tokens }))
  await withEngine(cached({ modelDir: SMALL }), async (engine) => {
    expect((await collect(engine, { tokens, cacheSalt: 'b' })).cached).toBe(0)
    expect((await collect(engine, { tokens })).cached).toBe(192)
  })
  const other = join(scratch, 'other')
  cpSync(SMALL, other, { recursive: true })
  const weights = readFileSync(join(other, 'model.safetensors'))
  weights[weights.length - 2] = (weights[weights.length - 2] ?? 0) ^ 1
  writeFileSync(join(other, 'model.safetensors'), weights)
  const dir = join(scratch, 'cache')
  const kept = join(scratch, 'kept')
  cpSync(dir, kept, { recursive: true })
  for (const options of [{ modelDir: other }, { modelDir: SMALL, isa: 'scalar' }]) {
    rmSync(dir, { recursive: true })
    cpSync(kept, dir, { recursive: true })
    await withEngine(cached(options), async (engine) => {
      expect(engine.stats().diskPages).toBe(0)
      expect((await collect(engine, { tokens })).cached).toBe(0)
    })
  }
})

test('a damaged page is a miss, the pages before it are hits, and it is written anew', async () => {
  const tokens = prompt(400, 90, 7)
  const cold = await withEngine(cached({ modelDir: SMALL }), (engine) => collect(engine, { tokens }))
  const file = join(scratch, 'cache', 'pages')
  const bytes = readFileSync(file)
  const { pageBytes } = await withEngine({ modelDir: SMALL }, (engine) => engine.info)
  bytes[3 * pageBytes + 17] = (bytes[3 * pageBytes + 17] ?? 0) ^ 0x40
  writeFileSync(file, bytes)
  await withEngine(cached({ modelDir: SMALL }), async (engine) => {
    const { cached: found, ids } = await collect(engine, { tokens })
    expect([found, ids]).toEqual([3 * 64, cold.ids])
    expect(engine.stats()).toMatchObject({ diskHits: 3, diskCorrupt: 1 })
    await written(engine)
  })
  await withEngine(cached({ modelDir: SMALL }), async (engine) => {
    const { cached: found, ids } = await collect(engine, { tokens })
    expect([found, ids]).toEqual([6 * 64, cold.ids])
  })
})

test('many who want the same pages at once read them once; one that is cancelled meanwhile leaves nothing behind', async () => {
  const tokens = prompt(400, 90, 8)
  await withEngine(cached({ modelDir: SMALL }), (engine) => collect(engine, { tokens }))
  await withEngine(cached({ modelDir: SMALL }), async (engine) => {
    const gone = new Promise((resolve) => {
      const handle = engine.submit({ ...GREEDY, tokens }, (events) => {
        for (const event of events) if (event.kind === 'end') resolve(event.reason)
      })
      handle.cancel()
    })
    const all = await Promise.all(Array.from({ length: 5 }, () => collect(engine, { tokens })))
    expect(all.map((one) => one.cached)).toEqual(Array(5).fill(384))
    await gone
    expect(engine.stats()).toMatchObject({ diskReads: 6, diskHits: 6, kvPagesUsed: 0 })
    expect(engine.stats().memoryHits).toBeGreaterThanOrEqual(4 * 6)
    expect(engine.integrity()).toBe('')
  })
})

test('few pages of memory, more on disk: what memory lost is found, and nobody waits for ever', async () => {
  await withEngine(cached({ modelDir: SMALL, kvPages: 12 }), async (engine) => {
    const specs = Array.from({ length: 8 }, (_, i) => ({
      tokens: prompt(200, 90, i + 1),
      cacheSalt: String(i % 2),
      maxTokens: 20,
    }))
    const cold = await Promise.all(specs.map((spec) => collect(engine, spec)))
    await written(engine)
    expect(engine.stats().evictions).toBeGreaterThan(0)
    const warm = await Promise.all([...specs, ...specs].map((spec) => collect(engine, spec)))
    for (const [i, { ids }] of warm.entries()) expect(ids, `sequence ${i}`).toEqual(cold[i % 8]?.ids)
    const { diskHits, diskCorrupt, kvPagesUsed } = engine.stats()
    expect(diskHits).toBeGreaterThan(20)
    expect([diskCorrupt, kvPagesUsed, engine.integrity()]).toEqual([0, 0, ''])
  })
})

test('a budget is kept, and the folder belongs to one engine', async () => {
  await withEngine({ modelDir: SMALL }, async ({ info }) => {
    const cacheBytes = 10 * (info.pageBytes + 128) + 128
    await withEngine(cached({ modelDir: SMALL, cacheBytes }), async (engine) => {
      await expect(withEngine(cached({ modelDir: SMALL }), () => 0)).rejects.toThrow(/cacheDir.*another process/)
      for (let i = 1; i < 8; i++) await collect(engine, { tokens: prompt(200, 90, i) })
      await written(engine)
      const { diskPages, diskBytes, diskEvictions } = engine.stats()
      expect([diskPages, diskBytes]).toEqual([10, 10 * info.pageBytes])
      expect(diskEvictions).toBeGreaterThan(0)
    })
  })
  await expect(withEngine(cached({ modelDir: SMALL, cacheBytes: 100 }), () => 0)).rejects.toThrow(/cacheBytes/)
  await expect(withEngine({ ...cached({ modelDir: SMALL }), cacheDir: '/dev/null/x' }, () => 0)).rejects.toThrow(
    /cacheDir/,
  )
})

test('a process killed while it writes leaves pages that are right', async () => {
  const env = { ...process.env, CACHE_DIR: join(scratch, 'cache'), MODEL: SMALL }
  const specs = Array.from({ length: 40 }, (_, i) => ({ tokens: prompt(300, 90, i + 1), maxTokens: 8 }))
  const expected = await withEngine({ modelDir: SMALL }, (engine) =>
    Promise.all(specs.map((spec) => collect(engine, spec))),
  )
  const child = spawn(process.execPath, [join(import.meta.dirname, 'disk_writer.ts')], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'exit')
  await withEngine(cached({ modelDir: SMALL }), async (engine) => {
    const found = await Promise.all(specs.map((spec) => collect(engine, spec)))
    expect(found.map(({ ids }) => ids)).toEqual(expected.map(({ ids }) => ids))
    expect(engine.stats().diskHits).toBeGreaterThan(0)
    expect(engine.stats().diskCorrupt).toBe(0)
  })
})

test('an engine closed with reads and writes in flight ends', async () => {
  const specs = Array.from({ length: 10 }, (_, i) => ({ tokens: prompt(400, 90, i + 1), maxTokens: 2 }))
  for (let round = 0; round < 3; round++) {
    await withEngine(cached({ modelDir: SMALL }), async (engine) => {
      const all = specs.map((spec) => collect(engine, spec))
      if (round === 0) await Promise.all(all)
      else await sleep(round)
    })
  }
})
