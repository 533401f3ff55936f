// A rotation of the journal that fails half-way, while runs close: every receipt keeps a number of its own, and none is lost.
import { randomUUID } from 'node:crypto'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Journal } from '../../gpu-node/journal.ts'
import { tempDir } from './fixture.ts'

/** While set, no new file can be made; told before the folder is read and before the file is refused. */
let whileRotating: (() => void) | undefined
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>()
  const readdir = async (path: string) => {
    const names = await real.readdir(path)
    whileRotating?.()
    return names
  }
  const open = (path: string, flags: string, mode?: number) => {
    if (!whileRotating || flags !== 'ax') return real.open(path, flags, mode)
    whileRotating()
    return Promise.reject(new Error('ENOSPC: no space left on device'))
  }
  return { ...real, readdir, open }
})

let dir: ReturnType<typeof tempDir>
beforeEach(() => {
  dir = tempDir()
})
afterEach(() => {
  whileRotating = undefined
  dir.remove()
})

const start = () => Journal.start({ dir: dir.path, nodeId: 'node-test', onFailure: () => {}, rotateBytes: 2_000 })

test('what closes while a rotation fails, or after it, has a number that nothing else has', async () => {
  const journal = await start()
  const served: Promise<unknown>[] = []
  const serve = async (): Promise<void> => {
    const run = { requestId: randomUUID(), attempt: 1, accountId: 'a', keyId: 'k', model: 'm', openedAt: Date.now() }
    const opened = journal.open(run)
    const counts = { hit: 0, miss: 7, output: 1, reasoning: 0, firstTokenAt: Date.now() }
    const closed = journal.close(run, { finish: 'stop', prefix: [], counts })
    served.push(opened, closed)
    await closed
  }
  let failures = 0
  whileRotating = () => {
    failures++
    void serve()
  }
  for (let i = 0; i < 30; i++) await serve()
  expect(failures).toBeGreaterThan(1)
  expect(journal.failed).toBe(false)
  whileRotating = undefined
  for (let i = 0; i < 30; i++) await serve()
  await Promise.all(served)
  const receipts = [...journal.pending.values()]
  expect(receipts).toHaveLength(60 + failures)
  expect(new Set(receipts.map(({ epoch, seq }) => `${epoch} ${seq}`)).size).toBe(receipts.length)
  expect(new Set(receipts.map(({ epoch }) => epoch)).size).toBeGreaterThan(1)
  await journal.stop()
  const again = await start()
  expect([...again.pending.values()]).toEqual(receipts)
  await again.stop()
})
