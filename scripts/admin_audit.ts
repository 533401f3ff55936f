// `npm run admin -- audit`: the edge's own audit, and every node journal at hand against the books. A journal is read, never written.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeLine } from '../gpu-node/journal_records.ts'
import type { Receipt } from '../schema/wire.ts'

/** As the admin API reports it (edge/admin/audit.ts). */
export interface Finding {
  readonly kind: string
  readonly account: string
  readonly row: string
  readonly expected: number | string | null
  readonly found: number | string | null
}

export interface AuditReport {
  readonly ok: boolean
  readonly accounts: number
  /** Journal records that were compared. */
  readonly receipts: number
  readonly findings: readonly Finding[]
}

export type Call = <T>(method: string, path: string, body?: object) => Promise<T>

/** Stays below D1's hundred bound parameters. */
const BATCH = 90

interface Journal {
  readonly nodeId: string
  readonly epochs: readonly string[]
  readonly closed: readonly Receipt[]
  readonly acknowledged: ReadonlySet<string>
  readonly damaged: number
}

const keyOf = ({ requestId, attempt }: { requestId: string; attempt: number }): string => `${requestId}/${attempt}`

/** Everything that still stands in a journal's files. */
const readJournal = (dir: string): Journal => {
  const closed = new Map<string, Receipt>()
  const acknowledged = new Set<string>()
  const epochs: string[] = []
  let damaged = 0
  for (const name of readdirSync(dir).sort()) {
    const epoch = /^journal-([\w-]+)\.log$/.exec(name)?.[1]
    if (!epoch) continue
    epochs.push(epoch)
    for (const line of readFileSync(join(dir, name), 'utf8').split('\n')) {
      const record = line === '' ? undefined : decodeLine(line)
      if (line !== '' && !record) damaged++
      if (record?.t === 'close') closed.set(keyOf(record.receipt), record.receipt)
      if (record?.t === 'ack') acknowledged.add(keyOf(record))
    }
  }
  const receipts = [...closed.values()]
  return { nodeId: receipts[0]?.nodeId ?? '', epochs, closed: receipts, acknowledged, damaged }
}

/** What was booked from the epochs whose files are there: asked before the journal is read, which then holds all of it. */
const bookedOf = async (call: Call, dir: string): Promise<Map<string, Booked[]>> => {
  const { nodeId, epochs } = readJournal(dir)
  const booked = new Map<string, Booked[]>()
  for (const epoch of nodeId === '' ? [] : epochs) {
    const path = `/audit/booked?node=${encodeURIComponent(nodeId)}&epoch=${encodeURIComponent(epoch)}`
    booked.set(epoch, (await call<{ data: Booked[] }>('GET', path)).data)
  }
  return booked
}
type Booked = { readonly requestId: string; readonly accountId: string; readonly seq: number }

/** Receipts against bookings, then bookings of the journal's own epochs against its receipts. */
const auditJournal = async (call: Call, dir: string): Promise<{ receipts: number; findings: Finding[] }> => {
  const booked = await bookedOf(call, dir)
  const { nodeId, epochs, closed, acknowledged, damaged } = readJournal(dir)
  const findings: Finding[] = []
  for (let at = 0; at < closed.length; at += BATCH) {
    const entries = closed.slice(at, at + BATCH).map((r) => ({
      ...{ requestId: r.requestId, attempt: r.attempt, accountId: r.accountId, epoch: r.epoch, seq: r.seq },
      ...{ hitTokens: r.hitTokens, missTokens: r.missTokens, outputTokens: r.outputTokens, closedAt: r.closedAt },
      acknowledged: acknowledged.has(keyOf(r)),
    }))
    findings.push(...(await call<{ findings: Finding[] }>('POST', '/audit/receipts', { nodeId, entries })).findings)
  }
  const places = new Set(closed.map((r) => `${r.requestId} ${r.epoch} ${r.seq}`))
  for (const epoch of epochs) {
    for (const { requestId, accountId, seq } of booked.get(epoch) ?? []) {
      if (places.has(`${requestId} ${epoch} ${seq}`)) continue
      findings.push({
        ...{ kind: 'booked without a receipt in the journal', account: accountId, row: requestId },
        ...{ expected: `${nodeId} ${epoch} ${seq}`, found: null },
      })
    }
  }
  if (damaged > 0)
    findings.push({ kind: 'damaged journal lines', account: '', row: nodeId, expected: 0, found: damaged })
  return { receipts: closed.length, findings }
}

export const auditBooks = async (call: Call, journalDirs: readonly string[]): Promise<AuditReport> => {
  const edge = await call<{ accounts: number; findings: Finding[] }>('GET', '/audit')
  const findings = [...edge.findings]
  let receipts = 0
  for (const dir of journalDirs.filter((dir) => existsSync(dir))) {
    const journal = await auditJournal(call, dir)
    receipts += journal.receipts
    findings.push(...journal.findings)
  }
  return { ok: findings.length === 0, accounts: edge.accounts, receipts, findings }
}
