// `node gpu-node/main.ts`: settings from the environment, the native engine, signals.
import { join } from 'node:path'
import { readSettings, StartError } from './config.ts'
import { openNativeEngine } from './engine/native.ts'
import { withoutReuse } from './engine/without_reuse.ts'
import { type OpenEngine, startNode } from './node.ts'
import { obeySignals } from './signals.ts'

const openEngine: OpenEngine = async (settings, { tokenBytes }) => {
  const reuses = settings.SPARROW_PREFIX_CACHE === 'on'
  const { SPARROW_THREADS: threads, SPARROW_KV_PAGES: kvPages } = settings
  const { SPARROW_KV_BYTES: kvBytes, SPARROW_CACHE_BYTES: cacheBytes } = settings
  const { SPARROW_CONTEXT_TOKENS: contextLength, SPARROW_STEP_TOKENS: stepTokens } = settings
  const engine = await openNativeEngine({
    modelDir: settings.SPARROW_MODEL_DIR,
    tokenBytes,
    isa: settings.SPARROW_ISA,
    kv: settings.SPARROW_KV,
    speculate: settings.SPARROW_SPECULATE === 'on',
    attention: settings.SPARROW_ATTENTION,
    cacheDir: settings.SPARROW_CACHE_DIR ?? join(settings.SPARROW_STATE_DIR, 'cache'),
    cacheBytes: reuses ? cacheBytes : 0,
    maxRunning: settings.SPARROW_RUNNING_MAX,
    ...(threads === undefined ? {} : { threads }),
    ...(kvPages === undefined ? {} : { kvPages }),
    ...(kvBytes === undefined ? {} : { kvBytes }),
    ...(contextLength === undefined ? {} : { contextLength }),
    ...(stepTokens === undefined ? {} : { stepTokens }),
  })
  return reuses ? engine : withoutReuse(engine)
}

// Whoever read the log is gone: that is no reason to break answers.
process.stderr.on('error', () => {})

const main = async (): Promise<void> => {
  obeySignals(await startNode(readSettings(process.env), openEngine, () => process.exit(1)))
}

main().catch((error: unknown) => {
  const isOurs = error instanceof StartError
  process.stderr.write(`sparrow node: ${isOurs ? error.message : ((error as Error)?.stack ?? String(error))}\n`)
  process.exit(isOurs ? 2 : 1)
})
