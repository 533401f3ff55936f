// An engine whose output a test dictates: the Engine interface without a model. Prompts are "prefilled" at once or when the
// test says so; pages are counted as cached when the same prompt came before under the same salt.
import {
  type Engine,
  EngineError,
  type EngineEvent,
  type SequenceHandle,
  type SequenceSpec,
} from '../../gpu-node/engine/engine.ts'

export interface Script {
  /** Ids to sample, in order; the run ends with `stop_token` behind them, or with `length` at maxTokens. */
  readonly ids: readonly number[]
  readonly idsPerStep?: number
  readonly stepMs?: number
  /** Behind so many ids it goes on only when this resolves. */
  readonly pauses?: { readonly at: number; readonly until: Promise<unknown> }
  /** Ends the run with an engine error behind the ids. */
  readonly fails?: boolean
  /** Stays in the queue: no start event until cancelled. To who watches it this engine hangs. */
  readonly queued?: boolean
  /** As `queued`, but for want of a mask, not of steps. */
  readonly held?: boolean
}

export interface ScriptedEngine extends Engine {
  script: (spec: SequenceSpec) => Script
  readonly submitted: SequenceSpec[]
  cancels: number
}

const CONTEXT = 4096

/** -1 of the second token, -2 of the third, and so on. */
const scoresOf = (tokens: Int32Array) => Array.from(tokens.subarray(1), (_, i) => ({ logprob: -1 - i, top: [] }))

export const scriptedEngine = (script: (spec: SequenceSpec) => Script): ScriptedEngine => {
  const seen = new Set<string>()
  let running = 0
  let held = 0
  let steps = 0
  const engine: ScriptedEngine = {
    script,
    submitted: [],
    cancels: 0,
    info: {
      ...{ vocabSize: 4096, contextLength: CONTEXT, pageTokens: 64, pageBytes: 4096, kvPages: 1024, eosTokenIds: [1] },
      ...{ backend: 'scripted', isa: 'none', parameters: 0, weightBytes: 0, speculates: false },
    },
    submit(spec, onEvents): SequenceHandle {
      if (spec.tokens.length + 1 > CONTEXT) throw new EngineError('context_too_long', 'too long')
      engine.submitted.push(spec)
      const key = `${spec.cacheSalt}:${spec.tokens.join()}`
      const promptTokens = spec.tokens.length
      const cachedTokens = seen.has(key) ? Math.floor((promptTokens - 1) / 64) * 64 : 0
      return play(spec, engine.script(spec), promptTokens, cachedTokens, (events) => {
        if (events.some((event) => event.kind === 'end')) running--
        seen.add(key)
        onEvents(events)
      })
    },
    stats: () => ({
      ...{ running, waiting: 0, kvPages: 1024, kvPagesUsed: 0, kvPagesCached: 0, steps },
      busy: running > held ? 1 : 0,
      ...{ prefillTokens: 0, decodeTokens: 0, cachedTokens: 0, sparseQueries: 0, draftTokens: 10, acceptedTokens: 7 },
      ...{ preemptions: 0, recomputedTokens: 0, admitted: 0, queueWaitMicroseconds: 0, deadlines: 0 },
      ...{ memoryHits: 0, diskHits: 0, evictions: 0, diskPages: 0, diskBytes: 0, diskPending: 0, diskReads: 0 },
      ...{ diskWrites: 0, diskEvictions: 0, diskCorrupt: 0, diskErrors: 0 },
    }),
    close: async () => {},
  }
  const play = (
    spec: SequenceSpec,
    { ids, idsPerStep = 1, stepMs = 0, fails = false, queued = false, held: isHeld = false, pauses }: Script,
    promptTokens: number,
    cachedTokens: number,
    onEvents: (events: readonly EngineEvent[]) => void,
  ): SequenceHandle => {
    running++
    if (isHeld) held++
    let at = 0
    let ended = false
    const computedTokens = promptTokens - cachedTokens
    const soon = (next: () => void) => (stepMs > 0 ? setTimeout(next, stepMs) : setImmediate(next))
    const limit = Math.min(ids.length, spec.maxTokens)
    const end = (reason: Extract<EngineEvent, { kind: 'end' }>['reason']): EngineEvent => {
      ended = true
      if (isHeld) held--
      const computed = queued || isHeld ? 0 : computedTokens
      return { kind: 'end', reason, promptTokens, cachedTokens, computedTokens: computed, sampledTokens: at }
    }
    const step = (): void => {
      if (ended) return
      steps++
      const events: EngineEvent[] = at === 0 ? [{ kind: 'start', promptTokens, cachedTokens }] : []
      if (at === 0 && spec.promptLogprobs) events.push({ kind: 'prompt', logprobs: scoresOf(spec.tokens) })
      const next = ids.slice(at, Math.min(at + idsPerStep, limit))
      at += next.length
      if (next.length > 0) events.push({ kind: 'tokens', ids: next })
      if (at >= limit) events.push(end(fails ? 'error' : limit < ids.length ? 'length' : 'stop_token'))
      onEvents(events)
      if (ended) return
      if (pauses && at - next.length < pauses.at && at >= pauses.at) void pauses.until.then(() => soon(step))
      else soon(step)
    }
    if (!queued && !isHeld) soon(step)
    return {
      cancel: () => {
        engine.cancels++
        if (ended) return
        const event = end('cancelled')
        setImmediate(() => onEvents([event]))
      },
      mask: () => {},
    }
  }
  return engine
}
