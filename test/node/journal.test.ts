// The journal: what it promised to be durable is there after SIGKILL at any moment, a torn or damaged line costs itself only,
// an attempt is never closed twice, and the files stay small.
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { appendFileSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Journal } from '../../gpu-node/journal.ts'
import { JournalState } from '../../gpu-node/journal_records.ts'
import { receiptFault } from '../../schema/receipt.ts'
import { receiptSchema } from '../../schema/wire.ts'
import { tempDir } from './fixture.ts'

let dir: ReturnType<typeof tempDir>
beforeEach(() => {
  dir = tempDir()
})
afterEach(() => dir.remove())

const start = (rotateBytes?: number): Promise<Journal> =>
  Journal.start({
    dir: dir.path,
    nodeId: 'node-test',
    onFailure: () => {},
    ...(rotateBytes ? { rotateBytes } : {}),
  })

const opening = (requestId: string = randomUUID()) => ({
  ...{ requestId, attempt: 1, accountId: 'a', keyId: 'k', model: 'm', openedAt: Date.now() },
})
const counts = (output: number) => ({ hit: 64, miss: 7, output, reasoning: 0, firstTokenAt: Date.now() })
const file = (): string => join(dir.path, readdirSync(dir.path).sort().at(-1) ?? '')

test('a restart closes orphans from their last progress, once', async () => {
  const first = await start()
  const [silent, spoke, whole] = [opening(), opening(), opening()]
  await Promise.all([first.open(silent), first.open(spoke), first.open(whole)])
  first.progress(spoke, counts(64))
  first.progress(spoke, counts(128))
  await first.close(whole, { finish: 'stop', prefix: [], counts: counts(130) })
  await first.stop()
  const second = await start()
  const of = (requestId: string) => second.pending.get(`${requestId}/1`)
  expect(of(silent.requestId)).toMatchObject({ finish: 'node_lost', hitTokens: 0, missTokens: 0, outputTokens: 0 })
  expect(of(spoke.requestId)).toMatchObject({ finish: 'node_lost', hitTokens: 64, missTokens: 7, outputTokens: 128 })
  expect(of(whole.requestId)).toMatchObject({ finish: 'stop', outputTokens: 130, epoch: first.epoch })
  const before = [...second.pending.values()]
  await second.stop()
  const third = await start()
  expect([...third.pending.values()]).toEqual(before)
  expect(third.hasSeen(silent)).toBe(true)
  expect(third.hasSeen({ ...silent, attempt: 2 })).toBe(false)
  await third.stop()
})

test('where no new file can be made the old one goes on, and every receipt has a number of its own', async () => {
  const journal = await start(2000)
  const away = `${dir.path}-away`
  const serve = async (): Promise<string> => {
    const run = opening()
    await journal.open(run)
    const { epoch, seq } = await journal.close(run, { finish: 'stop', prefix: [], counts: counts(1) })
    return `${epoch} ${seq}`
  }
  const many = (): Promise<string[]> => Promise.all(Array.from({ length: 50 }, serve))
  renameSync(dir.path, away)
  const names = [...(await many()), ...(await many())]
  expect(journal.failed).toBe(false)
  renameSync(away, dir.path)
  for (let i = 0; i < 10; i++) names.push(...(await many()))
  expect(new Set(names).size).toBe(names.length)
  expect(new Set(names.map((name) => name.split(' ')[0])).size).toBeGreaterThan(1)
  await journal.stop()
  const again = await start()
  expect(again.pending.size).toBe(names.length)
  await again.stop()
})

test('acknowledged receipts are gone after a restart', async () => {
  const first = await start()
  const [kept, settled] = [opening(), opening()]
  for (const run of [kept, settled]) {
    await first.open(run)
    await first.close(run, { finish: 'stop', prefix: [], counts: counts(1) })
  }
  first.acknowledge(settled)
  await first.stop()
  const second = await start()
  expect([...second.pending.keys()]).toEqual([`${kept.requestId}/1`])
  await second.stop()
})

test('where the clock steps back a run does not end before it began, and the next life is a later one', async () => {
  const first = await start()
  const run = opening()
  await first.open(run)
  const clock = vi.spyOn(Date, 'now').mockReturnValue(run.openedAt - 3_600_000)
  const receipt = await first.close(run, { finish: 'stop', prefix: [], counts: counts(5) })
  expect(receipt.closedAt).toBeGreaterThanOrEqual(receipt.openedAt)
  await first.stop()
  const second = await start()
  clock.mockRestore()
  // Files are read in the order of their names.
  expect(second.epoch > first.epoch).toBe(true)
  await second.stop()
})

test('a record that a snapshot holds already changes nothing behind it', async () => {
  const journal = await start()
  const run = opening()
  await journal.open(run)
  const receipt = await journal.close(run, { finish: 'stop', prefix: [], counts: counts(5) })
  await journal.stop()
  const state = new JournalState()
  state.apply({ t: 'close', receipt })
  state.apply({ t: 'open', run })
  expect([state.open.size, [...state.closed.values()]]).toEqual([0, [receipt]])
})

test('closing twice is a bug, and does not make a second receipt', async () => {
  const journal = await start()
  const run = opening()
  await journal.open(run)
  await journal.close(run, { finish: 'stop', prefix: [], counts: counts(5) })
  await expect(journal.close(run, { finish: 'stop', prefix: [], counts: counts(9) })).rejects.toThrow('not open')
  expect([...journal.pending.values()].map((r) => r.outputTokens)).toEqual([5])
  await journal.stop()
})

test('a torn tail costs the torn record only', async () => {
  const first = await start()
  const run = opening()
  await first.open(run)
  first.progress(run, counts(64))
  await first.stop()
  const whole = readFileSync(file(), 'utf8')
  const torn = whole.trimEnd().split('\n').at(-1) ?? ''
  for (let cut = 1; cut < torn.length; cut += 17) {
    writeFileSync(file(), `${whole}${torn.slice(0, cut)}`)
    const journal = await start()
    expect(journal.pending.get(`${run.requestId}/1`)?.outputTokens).toBe(64)
    await journal.stop()
    for (const name of readdirSync(dir.path)) writeFileSync(join(dir.path, name), '')
    writeFileSync(file(), whole)
  }
})

test('a flipped byte costs its line; the lines behind it still count', async () => {
  const first = await start()
  const [a, b] = [opening(), opening()]
  await first.open(a)
  await first.open(b)
  await first.stop()
  const lines = readFileSync(file(), 'utf8').split('\n')
  const at = lines.findIndex((line) => line.includes(a.requestId))
  lines[at] = (lines[at] ?? '').replace('"k"', '"X"')
  writeFileSync(file(), lines.join('\n'))
  const second = await start()
  expect([...second.pending.keys()]).toEqual([`${b.requestId}/1`])
  await second.stop()
})

test('a sound record of another version stops the start, and nothing is lost', async () => {
  const first = await start()
  await first.open(opening())
  await first.stop()
  const { crc32 } = await import('node:zlib')
  const json = '{"t":"future"}'
  appendFileSync(file(), `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`)
  const before = readFileSync(file(), 'utf8')
  await expect(start()).rejects.toThrow('this version cannot read')
  expect(readFileSync(file(), 'utf8')).toBe(before)
})

test('files stay small while runs come and go, and what is live survives every rotation', async () => {
  const journal = await start(8 * 1024)
  const long = opening()
  await journal.open(long)
  journal.progress(long, counts(64))
  const unsettled: string[] = []
  for (let i = 0; i < 300; i++) {
    const run = opening()
    await journal.open(run)
    await journal.close(run, { finish: 'stop', prefix: [], counts: counts(i) })
    if (i % 100 === 0) unsettled.push(run.requestId)
    else journal.acknowledge(run)
  }
  await journal.sync()
  expect(readdirSync(dir.path).length).toBe(1)
  expect(statSync(file()).size).toBeLessThan(150 * 1024)
  await journal.stop()
  const again = await start()
  expect(new Set(again.pending.keys())).toEqual(new Set([...unsettled, long.requestId].map((id) => `${id}/1`)))
  expect(again.pending.get(`${long.requestId}/1`)?.outputTokens).toBe(64)
  const names = [...again.pending.values()].map((r) => `${r.epoch}/${r.seq}`)
  expect(new Set(names).size).toBe(names.length)
  await again.stop()
})

test('what waits for its edge is not written anew for each run', async () => {
  const journal = await start(1_000)
  const epochs = new Set<string>()
  for (let i = 0; i < 100; i++) {
    const run = opening()
    await journal.open(run)
    epochs.add((await journal.close(run, { finish: 'stop', prefix: [], counts: counts(1) })).epoch)
  }
  expect(epochs.size).toBeLessThan(20)
  await journal.stop()
})

test('one fsync serves all that wait', async () => {
  const journal = await start()
  const runs = Array.from({ length: 200 }, () => opening())
  const one = await open(join(dir.path, 'any'), 'w')
  await one.close()
  const synced = vi.spyOn(Object.getPrototypeOf(one) as typeof one, 'datasync')
  await Promise.all(runs.map((run) => journal.open(run)))
  // Counted, not timed: a disk may be slow.
  expect(synced).toHaveBeenCalledTimes(1)
  synced.mockRestore()
  expect(journal.openRuns).toBe(200)
  await journal.stop()
})

const WRITER = fileURLToPath(new URL('./journal_writer.ts', import.meta.url))

/** Runs the writer for `ms`, kills it, and returns the lines it printed: each was a promise. */
const killedAfter = (ms: number, rotateBytes: number): Promise<string[]> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [WRITER, dir.path, String(rotateBytes)], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    let out = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (out === '') setTimeout(() => child.kill('SIGKILL'), ms)
      out += text
    })
    child.once('close', () => resolve(out.split('\n').slice(0, -1)))
  })

test('SIGKILL at any moment loses nothing that was promised', async () => {
  for (const [round, ms] of [3, 17, 40, 90, 160].entries()) {
    const lines = await killedAfter(ms, round % 2 === 0 ? 0 : 4096)
    expect(lines.length).toBeGreaterThan(0)
    const promised = new Map<string, { closed?: number; progress: number; acked: boolean }>()
    for (const line of lines) {
      const [what, id = '', tokens] = line.split(' ')
      const entry = promised.get(id) ?? { progress: 0, acked: false }
      if (what === 'progress') entry.progress = Number(tokens)
      if (what === 'close') entry.closed = Number(tokens)
      if (what === 'ack') entry.acked = true
      promised.set(id, entry)
    }
    const journal = await start()
    for (const [id, { closed, progress, acked }] of promised) {
      const receipt = journal.pending.get(`${id}/1`)
      expect(journal.hasSeen({ requestId: id, attempt: 1 })).toBe(true)
      if (acked) expect(receipt).toBeUndefined()
      else if (closed !== undefined) {
        // Closed for the caller; its acknowledgement may have become durable without being promised.
        if (receipt) expect(receipt).toMatchObject({ finish: 'stop', outputTokens: closed })
      } else if (receipt) expect(receipt.outputTokens).toBeGreaterThanOrEqual(progress)
    }
    const unacked = [...promised.values()].filter((entry) => !entry.acked).length
    expect(journal.pending.size).toBeGreaterThanOrEqual(unacked - 4)
    for (const receipt of journal.pending.values()) {
      expect(receiptSchema.safeParse(receipt).success).toBe(true)
      expect(receiptFault(receipt)).toBeUndefined()
      journal.acknowledge(receipt)
    }
    await journal.stop()
  }
})
