// Engines for tests: every instruction set that this machine can run, and sequences collected to their end.
import type { Engine, EngineEvent, SequenceSpec } from '../../gpu-node/engine/engine.ts'
import { type NativeEngine, openNativeEngine } from '../../gpu-node/engine/native.ts'

/** Those whose activations are fp32. */
const FP32 = ['reference', 'scalar', 'avx2', 'avx512'] as const
/** The BF16 backend's. */
export const BF16 = ['avx2bf16', 'avx512bf16', 'amxbf16'] as const
export const EVERY_ISA = [...FP32, ...BF16] as const

/** Instruction sets beyond the portable ones are skipped where the processor lacks them. */
export const runnableIsas = async (modelDir: string, of: readonly string[] = FP32): Promise<string[]> => {
  const found: string[] = []
  for (const isa of of) {
    try {
      await (await openNativeEngine({ modelDir, tokenBytes: [], isa })).close()
      found.push(isa)
    } catch (error) {
      if (!String(error).includes('does not run on this processor')) throw error
    }
  }
  return found
}

export const withEngine = async <T>(
  options: {
    modelDir: string
    isa?: string
    kv?: string
    attention?: 'invariant' | 'fastest'
    kvPages?: number
    cacheDir?: string
    cacheBytes?: number
    stepTokens?: number
    maxRunning?: number
    threads?: number
    speculate?: boolean
    dense?: boolean
    tokenBytes?: Uint8Array[]
  },
  work: (engine: NativeEngine) => Promise<T> | T,
): Promise<T> => {
  const engine = await openNativeEngine({ tokenBytes: [], ...options })
  try {
    return await work(engine)
  } finally {
    await engine.close()
  }
}

export interface Outcome {
  readonly ids: number[]
  readonly cached: number
  readonly end: Extract<EngineEvent, { kind: 'end' }>
}

export const GREEDY = { cacheSalt: 'a', maxTokens: 24, temperature: 0, topP: 1, seed: 1n, stop: [] } as const

export const collect = (engine: Engine, spec: Partial<SequenceSpec> & { tokens: Int32Array }): Promise<Outcome> =>
  new Promise((resolve) => {
    const ids: number[] = []
    let cached = 0
    engine.submit({ ...GREEDY, ...spec }, (events) => {
      for (const event of events) {
        if (event.kind === 'start') cached = event.cachedTokens
        else if (event.kind === 'tokens') ids.push(...event.ids)
        else if (event.kind === 'end') resolve({ ids, cached, end: event })
      }
    })
  })

/** A reproducible pseudo-random prompt. */
export const prompt = (length: number, vocab: number, seed = 1): Int32Array => {
  let state = seed
  return Int32Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return 2 + (state % (vocab - 2))
  })
}
