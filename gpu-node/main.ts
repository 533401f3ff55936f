// The node: settings, identity, engine, journal, server, edge link, in that order; drains on SIGTERM.
import { join } from 'node:path'
import { readSettings, type Settings } from './config.ts'
import { EdgeLink } from './edge_link.ts'
import { EngineError } from './engine/engine.ts'
import { openNativeEngine } from './engine/native.ts'
import { loadIdentity } from './identity.ts'
import { Journal } from './journal.ts'
import { createMetrics } from './metrics.ts'
import { NodeServer } from './server.ts'
import { loadTokenizer } from './tokenizer.ts'

const FLUSH_MS = 5_000
/** Weight of the newest measurement in the running mean of prefill speed. */
const SPEED_WEIGHT = 0.2

const openEngine = (settings: Settings, tokenBytes: readonly Uint8Array[]) =>
  openNativeEngine({
    modelDir: settings.SPARROW_MODEL_DIR,
    tokenBytes,
    isa: settings.SPARROW_ISA,
    threads: settings.SPARROW_THREADS ?? 0,
    kvPages: settings.SPARROW_KV_PAGES ?? 0,
    contextLength: settings.SPARROW_CONTEXT_TOKENS ?? 0,
  })

const main = async (): Promise<void> => {
  const settings = readSettings(process.env)
  const tokenizer = await loadTokenizer(settings.SPARROW_MODEL_DIR)
  const engine = await openEngine(settings, tokenizer.tokenBytes)
  const identity = await loadIdentity(settings.SPARROW_STATE_DIR, settings.SPARROW_NODE_ID)
  const journal = await Journal.open(join(settings.SPARROW_STATE_DIR, 'journal'))
  const metrics = createMetrics(engine, () => journal.pendingCount)
  let prefillTokensPerSecond = 1000
  const load = () => {
    const { running, waiting, kvPages, kvPagesUsed } = engine.stats()
    return { running, waiting, kvPages, kvPagesUsed, prefillTokensPerSecond }
  }
  const { SPARROW_NODE_HOST: host, SPARROW_NODE_PORT: port, SPARROW_MODEL_NAME: model } = settings
  const link = new EdgeLink({
    edgeUrl: settings.SPARROW_EDGE_URL,
    joinToken: settings.SPARROW_JOIN_TOKEN,
    stateDir: settings.SPARROW_STATE_DIR,
    identity,
    journal,
    metrics,
    load,
    registration: {
      nodeId: identity.nodeId,
      address: settings.SPARROW_NODE_ADDRESS ?? `http://${host}:${port}`,
      publicKey: identity.publicKey,
      model,
      chatFormat: settings.SPARROW_CHAT_FORMAT,
      contextTokens: engine.info.contextLength,
    },
  })
  const server = new NodeServer({
    ...{ engine, tokenizer, journal, metrics, nodeId: identity.nodeId, queueMax: settings.SPARROW_QUEUE_MAX },
    dispatchSecret: () => link.dispatchSecret,
    healthDetails: () => ({ node: identity.nodeId, model, engine: engine.info, pendingReceipts: journal.pendingCount }),
    onClosed: () => link.ship(),
    onPrefill: (tokens, seconds) => {
      if (tokens < 64 || seconds <= 0) return
      prefillTokensPerSecond += SPEED_WEIGHT * (tokens / seconds - prefillTokensPerSecond)
    },
  })

  let stopping = false
  const stop = async (): Promise<void> => {
    // A second signal does not wait: the journal is intact at any moment.
    if (stopping) process.exit(1)
    stopping = true
    await link.drain()
    await server.drain(settings.SPARROW_DRAIN_SECONDS * 1000)
    await link.flush(FLUSH_MS)
    link.stop()
    await journal.stop()
    await engine.close()
    process.exit(0)
  }
  process.on('SIGTERM', () => void stop())
  process.on('SIGINT', () => void stop())
  server.http.on('error', (error) => fail(error))
  server.http.listen(port, host, () => void link.start())
}

const fail = (error: unknown): never => {
  const code = error instanceof EngineError ? `${error.code}: ` : ''
  console.error(`sparrow node: ${code}${error instanceof Error ? error.message : String(error)}`)
  process.exit(1)
}

main().catch(fail)
