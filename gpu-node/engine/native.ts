// The native engine behind the Engine interface: the only file that loads the addon.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import {
  type EndReason,
  type Engine,
  EngineError,
  type EngineErrorCode,
  type EngineEvent,
  type EngineInfo,
  type EngineOptions,
  type EngineStats,
  type SampledLogprob,
  type SequenceHandle,
} from './engine.ts'

const ADDON = fileURLToPath(new URL('../build/sparrow.node', import.meta.url))

interface Handle {
  readonly __opaque: unique symbol
}

interface NativeEvent {
  readonly id: number
  readonly token?: number
  /** A token of the prompt, of which `logprobs` tells. */
  readonly promptToken?: number
  /** id, logprob: the token's own, then the likeliest. */
  readonly logprobs?: Float64Array
  readonly promptTokens?: number
  readonly cachedTokens?: number
  readonly computedTokens?: number
  readonly sampledTokens?: number
  readonly reason?: EndReason
  readonly message?: string
}

export interface Tap {
  readonly layer: number
  readonly name: string
  readonly columns: number
  readonly data: Float32Array
}

export interface BenchPlan {
  readonly depth: number
  readonly prefill: number
  readonly decode: number
  readonly repeats: number
  /** Over 0: so many sequences of `depth` tokens decode together, and no prefill is timed. */
  readonly batch: number
  /** Over 0: the machine's limits with so many threads are taken around each repeat. */
  readonly threads: number
  /** 1: each repeat also decodes attending to every position, from the same cache. */
  readonly dense: boolean
}

/** Seconds of each repeat. */
export interface BenchTimes {
  readonly prefill: readonly number[]
  readonly decode: readonly number[]
  /** Decode that attends to every position, when the plan asks for it. */
  readonly dense: readonly number[]
  /** Seconds of `decode` in attention, and in the indexer's scores and choice. */
  readonly attend: readonly number[]
  readonly select: readonly number[]
  /** Seconds of one token sampled: temperature 0, 1, and 1 with top_p 0.95. */
  readonly greedy: readonly number[]
  readonly drawn: readonly number[]
  readonly nucleus: readonly number[]
  /** What the machine could do around each repeat. */
  readonly limits: readonly MachineLimits[]
}

export interface CrossoverPlan {
  readonly depth: number
  /** From 64 to 512, behind `depth` others. */
  readonly tokens: number
  readonly rounds: number
}

/** Seconds of attention alone, by turns; and what the rule predicts, in one unit. */
export interface CrossoverTimes {
  readonly absorbed: readonly number[]
  readonly expanded: readonly number[]
  readonly absorbedCost: number
  readonly expandedCost: number
}

/** Measured: bytes a second from memory, operations a second of the BF16 backend's products, fp32 ones on AVX2 (0: the processor has neither). */
export interface MachineLimits {
  readonly readBytes: number
  readonly bf16Flops: number
}

/** The addon's face, as gpu-node/native/addon.cc exports it. Strings are JSON: EngineOptions, SequenceSpec, EngineStats ... */
interface Addon {
  open(
    options: string,
    tokenBytes: readonly Uint8Array[],
    onEvents: (events: NativeEvent[]) => void,
  ): Promise<{ handle: Handle; info: EngineInfo }>
  submit(handle: Handle, spec: string, tokens: Int32Array, stop: readonly Uint8Array[]): void
  cancel(handle: Handle, id: number): void
  mask(handle: Handle, id: number, position: number, words: Uint32Array): void
  stats(handle: Handle): string
  evaluate(
    handle: Handle,
    tokens: readonly Int32Array[],
    chunks: readonly number[],
    lastOnly: boolean,
    taps: boolean,
  ): { logits: Float32Array[]; taps: Tap[] }
  bench(handle: Handle, plan: string): string
  integrity(handle: Handle): string
  close(handle: Handle): void
}

export interface ProbedSequence {
  readonly tokens: Int32Array
  /** Tokens it adds to a step: 1 as in decode, or a prefill's chunk. */
  readonly chunk: number
}

/** The native engine and its probes; the probes are for tests and tools, and block the caller. */
export interface NativeEngine extends Engine {
  /** Logits of every position, row-major, and named intermediates. */
  evaluate(tokens: Int32Array, chunk: number, taps: boolean): { logits: Float32Array; taps: Tap[] }
  /** Logits of every position of each sequence, all of them sharing the steps. */
  evaluateTogether(sequences: readonly ProbedSequence[]): Float32Array[]
  /** Logits after the last token alone. */
  nextLogits(tokens: Int32Array, chunk: number): Float32Array
  /** Times the model without schedule and JavaScript. Errors: context_too_long. */
  bench(plan: BenchPlan): BenchTimes
  /** Times both forms of attention. Errors: context_too_long; bad_argument unless opened with attention `fastest`. */
  crossover(plan: CrossoverPlan): CrossoverTimes
  /** Empty, or what is wrong with the page pool. */
  integrity(): string
}

const loadAddon = (): Addon => {
  if (!existsSync(ADDON)) {
    throw new EngineError('addon_missing', 'The native engine is not built. Run: npm run build:native')
  }
  return createRequire(import.meta.url)(ADDON) as Addon
}

const rethrow = (error: unknown): never => {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    throw new EngineError(error.code as EngineErrorCode, error.message)
  }
  throw error
}

const guarded = <T>(call: () => T): T => {
  try {
    return call()
  } catch (error) {
    return rethrow(error)
  }
}

const toLogprob = (pairs: Float64Array): SampledLogprob => ({
  logprob: pairs[1] ?? 0,
  top: Array.from({ length: pairs.length / 2 - 1 }, (_, i) => ({
    id: pairs[2 * i + 2] ?? 0,
    logprob: pairs[2 * i + 3] ?? 0,
  })),
})

const toEvent = (e: NativeEvent): EngineEvent => {
  if (e.promptToken !== undefined) return { kind: 'prompt', logprobs: e.logprobs ? [toLogprob(e.logprobs)] : [] }
  const promptTokens = e.promptTokens ?? 0
  const cachedTokens = e.cachedTokens ?? 0
  if (e.reason === undefined) return { kind: 'start', promptTokens, cachedTokens }
  return {
    kind: 'end',
    reason: e.reason,
    promptTokens,
    cachedTokens,
    computedTokens: e.computedTokens ?? 0,
    sampledTokens: e.sampledTokens ?? 0,
    ...(e.message === undefined ? {} : { message: e.message }),
  }
}

/** Groups a wake-up's events by sequence, runs of tokens joined. */
const bySequence = (events: readonly NativeEvent[]): Map<number, EngineEvent[]> => {
  const groups = new Map<number, EngineEvent[]>()
  const tokens = new Map<number, { ids: number[]; logprobs: SampledLogprob[] }>()
  for (const event of events) {
    const group = groups.get(event.id) ?? []
    groups.set(event.id, group)
    if (event.token === undefined) {
      group.push(toEvent(event))
      continue
    }
    let run = tokens.get(event.id)
    if (!run) {
      run = { ids: [], logprobs: [] }
      tokens.set(event.id, run)
      group.push({ kind: 'tokens', ids: run.ids, ...(event.logprobs ? { logprobs: run.logprobs } : {}) })
    }
    run.ids.push(event.token)
    if (event.logprobs) run.logprobs.push(toLogprob(event.logprobs))
  }
  return groups
}

/** Opens a checkpoint. Throws EngineError; its message names the tensor or field at fault. */
export const openNativeEngine = async (options: EngineOptions): Promise<NativeEngine> => {
  const addon = loadAddon()
  const listeners = new Map<number, (events: readonly EngineEvent[]) => void>()
  // The addon does not keep an idle process alive; a running sequence does.
  let alive: NodeJS.Timeout | undefined
  const deliver = (events: NativeEvent[]): void => {
    for (const [id, group] of bySequence(events)) {
      const listener = listeners.get(id)
      if (group.at(-1)?.kind === 'end') listeners.delete(id)
      try {
        listener?.(group)
      } catch (error) {
        // Thrown from here it would cost the others their events, and Node would only warn of it.
        queueMicrotask(() => {
          throw error
        })
      }
    }
    if (listeners.size === 0) {
      clearInterval(alive)
      alive = undefined
    }
  }
  const { tokenBytes, ...settings } = options
  const opening = guarded(() => addon.open(JSON.stringify(settings), tokenBytes, deliver))
  const { handle, info } = await opening.catch(rethrow)
  let nextId = 1
  return {
    info,
    submit(spec, onEvents): SequenceHandle {
      const id = nextId++
      listeners.set(id, onEvents)
      try {
        const { tokens, stop, seed, ...settings } = spec
        addon.submit(handle, JSON.stringify({ ...settings, id, seed: String(seed) }), tokens, stop)
      } catch (error) {
        listeners.delete(id)
        rethrow(error)
      }
      alive ??= setInterval(() => {}, 0x7fffffff)
      return {
        cancel: () => addon.cancel(handle, id),
        mask: (position, words) => guarded(() => addon.mask(handle, id, position, words)),
      }
    },
    stats: () => JSON.parse(guarded(() => addon.stats(handle))) as EngineStats,
    evaluate: (tokens, chunk, taps) => {
      const found = guarded(() => addon.evaluate(handle, [tokens], [chunk], false, taps))
      return { logits: found.logits[0] as Float32Array, taps: found.taps }
    },
    evaluateTogether: (sequences) => {
      const [tokens, chunks] = [sequences.map((s) => s.tokens), sequences.map((s) => s.chunk)]
      return guarded(() => addon.evaluate(handle, tokens, chunks, false, false)).logits
    },
    nextLogits: (tokens, chunk) =>
      guarded(() => addon.evaluate(handle, [tokens], [chunk], true, false)).logits[0] as Float32Array,
    bench: ({ depth, prefill, decode, repeats, batch, threads, dense }) => {
      const asked = JSON.stringify({ depth, prefill, decode, repeats, batch, threads, dense })
      return JSON.parse(guarded(() => addon.bench(handle, asked))) as BenchTimes
    },
    crossover: ({ tokens, ...plan }) => {
      const asked = JSON.stringify({ ...plan, prefill: tokens })
      return JSON.parse(guarded(() => addon.bench(handle, asked))) as CrossoverTimes
    },
    integrity: () => addon.integrity(handle),
    close: async () => addon.close(handle),
  }
}
