// The chain of sealed segments: each names the SHA-256 of the one before it, and once sealed is sent as it is, byte for byte, until
// the edge has it. The place in the chain and a segment not yet confirmed survive a restart.
import { createHash, randomUUID } from 'node:crypto'
import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Segment, SignedReceipt } from '../schema/wire.ts'
import { log } from './log.ts'

const stateSchema = z.object({
  chain: z.string(),
  index: z.number().int().nonnegative(),
  previous: z.string(),
  /** The segment at `index`, when it is sealed and not confirmed. */
  sealed: z.string().nullable(),
  /** SHA-256 of the others; files of older versions have none. */
  sum: z.string().optional(),
})
type State = z.infer<typeof stateSchema>

const sumOf = ({ chain, index, previous, sealed }: State): string =>
  createHash('sha256')
    .update(JSON.stringify([chain, index, previous, sealed]))
    .digest('hex')

/** Throws when it is damaged. */
const parseState = (text: string): State => {
  const state = stateSchema.parse(JSON.parse(text))
  if (state.sum !== undefined && state.sum !== sumOf(state)) throw new Error('its checksum is wrong')
  return state
}

const fresh = (): State => ({ chain: randomUUID(), index: 0, previous: '', sealed: null })

export class SegmentChain {
  readonly #file: string
  readonly #nodeId: string
  #state: State

  private constructor(file: string, nodeId: string, state: State) {
    this.#file = file
    this.#nodeId = nodeId
    this.#state = state
  }

  /** A file that is lost or damaged starts another chain: what was sealed under it is pending in the journal still. */
  static async load(stateDir: string, nodeId: string): Promise<SegmentChain> {
    const file = join(stateDir, 'chain.json')
    const text = await readFile(file, 'utf8').catch(() => undefined)
    let state: State | undefined
    try {
      state = text === undefined ? undefined : parseState(text)
    } catch {
      log('warn', 'chain_damaged', { file })
    }
    return new SegmentChain(file, nodeId, state ?? fresh())
  }

  /** The sealed segment that the edge may not have yet. */
  get unconfirmed(): string | undefined {
    return this.#state.sealed ?? undefined
  }

  /** Seals the next segment; durable when this resolves. */
  async seal(receipts: readonly SignedReceipt[]): Promise<string> {
    const { chain, index, previous } = this.#state
    const segment: Segment = { nodeId: this.#nodeId, link: { chain, index, previous }, receipts: [...receipts] }
    const sealed = JSON.stringify(segment)
    await this.#write({ ...this.#state, sealed })
    return sealed
  }

  /** The edge has the sealed segment. Were this forgotten, it would be sent once more and taken as what it is. */
  async confirm(): Promise<void> {
    const { chain, index, sealed } = this.#state
    if (sealed === null) return
    const previous = createHash('sha256').update(sealed).digest('hex')
    await this.#write({ chain, index: index + 1, previous, sealed: null })
  }

  /** The edge and this node disagree about the chain: the receipts, still pending, go out under another. */
  async restart(): Promise<void> {
    log('warn', 'chain_restarted', { chain: this.#state.chain, index: this.#state.index })
    await this.#write(fresh())
  }

  async #write(state: State): Promise<void> {
    const file = await open(`${this.#file}.new`, 'w', 0o600)
    try {
      await file.writeFile(JSON.stringify({ ...state, sum: sumOf(state) }))
      await file.datasync()
    } finally {
      await file.close()
    }
    await rename(`${this.#file}.new`, this.#file)
    this.#state = state
  }
}
