// What stands in a journal file: one record a line, `crc32 json`, and the state that replaying the lines gives. A torn tail
// or a damaged line costs that line only.
import { crc32 } from 'node:zlib'
import { z } from 'zod'
import { receiptSchema } from '../schema/wire.ts'

const count = z.number().int().nonnegative()
const keyShape = { requestId: z.string(), attempt: count }

export const openSchema = z.object({
  ...keyShape,
  accountId: z.string(),
  keyId: z.string(),
  model: z.string(),
  openedAt: count,
})
/** A run the node has taken on. */
export type OpenRun = z.infer<typeof openSchema>

const countsSchema = z.object({
  hit: count,
  miss: count,
  output: count,
  reasoning: count,
  firstTokenAt: count.nullable(),
  /** Of several prompts, where the edge asked for it. */
  firstPrompt: z.strictObject({ hit: count, miss: count }).optional(),
})
/** What a run has cost so far; `hit + miss` are prompt tokens, `reasoning` is part of `output`. */
export type RunCounts = z.infer<typeof countsSchema>

export const NO_COUNTS: RunCounts = { hit: 0, miss: 0, output: 0, reasoning: 0, firstTokenAt: null }

const recordSchema = z.discriminatedUnion('t', [
  z.object({ t: z.literal('open'), run: openSchema }),
  z.object({ t: z.literal('progress'), ...keyShape, counts: countsSchema }),
  z.object({ t: z.literal('close'), receipt: receiptSchema }),
  z.object({ t: z.literal('ack'), ...keyShape }),
  /** Kept from an older file: this attempt was taken once, and must not be taken again. */
  z.object({ t: z.literal('seen'), ...keyShape, openedAt: count }),
])
export type JournalRecord = z.infer<typeof recordSchema>

export interface RunKey {
  readonly requestId: string
  readonly attempt: number
}

export const keyOf = ({ requestId, attempt }: RunKey): string => `${requestId}/${attempt}`

/** One line; JSON has no raw newline. */
export const encodeRecord = (record: JournalRecord): string => {
  const json = JSON.stringify(record)
  return `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`
}

/** The record of a line, `undefined` when it is torn or damaged. Throws on a sound record of another version. */
export const decodeLine = (line: string): JournalRecord | undefined => {
  const json = line.slice(9)
  if (line[8] !== ' ' || Number.parseInt(line.slice(0, 8), 16) !== crc32(json)) return undefined
  return recordSchema.parse(JSON.parse(json))
}

/** All that a journal knows: runs not yet closed, receipts not yet acknowledged, attempts ever taken (of late). */
export class JournalState {
  readonly open = new Map<string, { run: OpenRun; counts: RunCounts }>()
  readonly closed = new Map<string, z.infer<typeof receiptSchema>>()
  readonly seen = new Map<string, number>()

  apply(record: JournalRecord): void {
    switch (record.t) {
      case 'open':
        // A snapshot may stand before records that it already holds: the first OPEN of an attempt is the only one.
        if (this.seen.has(keyOf(record.run))) return
        this.open.set(keyOf(record.run), { run: record.run, counts: NO_COUNTS })
        this.seen.set(keyOf(record.run), record.run.openedAt)
        return
      case 'progress': {
        const entry = this.open.get(keyOf(record))
        if (entry) this.open.set(keyOf(record), { ...entry, counts: record.counts })
        return
      }
      case 'close': {
        const key = keyOf(record.receipt)
        this.open.delete(key)
        this.closed.set(key, record.receipt)
        this.seen.set(key, record.receipt.openedAt)
        return
      }
      case 'ack':
        this.closed.delete(keyOf(record))
        return
      case 'seen':
        this.seen.set(keyOf(record), record.openedAt)
    }
  }

  /** Applies every sound line of a file; returns how many were not. */
  replay(text: string): number {
    let damaged = 0
    for (const line of text.split('\n')) {
      if (line === '') continue
      const record = decodeLine(line)
      if (record) this.apply(record)
      else damaged++
    }
    return damaged
  }

  /** The records from which a fresh file starts: enough to get this state again. Attempts older than `seenSince` go. */
  snapshot(seenSince: number): JournalRecord[] {
    const records: JournalRecord[] = []
    for (const [key, openedAt] of this.seen) {
      if (this.open.has(key) || this.closed.has(key)) continue
      if (openedAt < seenSince) {
        this.seen.delete(key)
        continue
      }
      const [requestId = '', attempt] = key.split('/')
      records.push({ t: 'seen', requestId, attempt: Number(attempt), openedAt })
    }
    for (const { run, counts } of this.open.values()) {
      records.push({ t: 'open', run }, { t: 'progress', requestId: run.requestId, attempt: run.attempt, counts })
    }
    for (const receipt of this.closed.values()) records.push({ t: 'close', receipt })
    return records
  }
}
