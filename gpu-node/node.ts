// A node, put together: engine, tokenizer, journal, shipper, tie to the edge, HTTP server; and taken apart in the right order.
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Load, Registration } from '../schema/wire.ts'
import { Admission } from './admission.ts'
import { cacheCounters, cacheGauges } from './cache_metrics.ts'
import { chatFormatOf, type NodeFormat } from './chat_template.ts'
import { type Settings, StartError } from './config.ts'
import { type Engine, EngineError } from './engine/engine.ts'
import type { Workshop } from './generate.ts'
import { Grammars } from './grammar.ts'
import { EdgeLink } from './heartbeat.ts'
import { loadIdentity, lockState } from './identity.ts'
import { Journal } from './journal.ts'
import { log } from './log.ts'
import { Metrics, PrefillSpeed } from './metrics.ts'
import { createNodeServer, type Health, type NodeServer } from './server.ts'
import { Shipper } from './shipper.ts'
import { loadTokenizer, type Tokenizer } from './tokenizer.ts'

const LAST_RECEIPTS_MS = 5_000

export interface RunningNode {
  readonly nodeId: string
  /** Base address at which the node listens. */
  readonly address: string
  /** Takes no more runs, finishes those at work, delivers the receipts, and stops. */
  drain(): Promise<void>
}

/** Opens the engine of a checkpoint whose token bytes are known; tests put their own in its place. */
export type OpenEngine = (settings: Settings, tokenizer: Tokenizer) => Promise<Engine>

const openEngine = async (open: OpenEngine, settings: Settings, tokenizer: Tokenizer): Promise<Engine> => {
  const engine = await open(settings, tokenizer).catch((error: unknown) => {
    throw error instanceof EngineError ? new StartError(`${settings.SPARROW_MODEL_DIR}: ${error.message}`) : error
  })
  if (tokenizer.vocabSize > engine.info.vocabSize) {
    const sizes = `tokenizer.json has ${tokenizer.vocabSize} tokens, the model ${engine.info.vocabSize}`
    throw new StartError(`${settings.SPARROW_MODEL_DIR}: ${sizes}`)
  }
  return engine
}

/** Everything that comes from the checkpoint. */
const openModel = async (open: OpenEngine, settings: Settings) => {
  const { SPARROW_CHAT_FORMAT: setting, SPARROW_MODEL_DIR: modelDir } = settings
  const tokenizer = await loadTokenizer(modelDir)
  const chat = await chatFormatOf(setting, modelDir, tokenizer.specialIds.keys())
  return { tokenizer, chat, engine: await openEngine(open, settings, tokenizer) }
}

const registeredFormat = ({ format, template }: NodeFormat): Pick<Registration, 'chatFormat' | 'template'> => ({
  chatFormat: format.name,
  ...(template ? { template } : {}),
})

const healthOf = ({ nodeId, model, admission, engine }: Workshop, registered: boolean): Health => {
  const { draining, running, waiting } = admission
  const ready = registered && !draining
  return { ready, nodeId, model, registered, draining, running, waiting, engine: engine.info }
}

/** How long readers may be silent, and streams to them. */
const patience = (settings: Settings) => ({
  stallMs: settings.SPARROW_STALL_SECONDS * 1000,
  keepAliveMs: settings.SPARROW_KEEP_ALIVE_SECONDS * 1000,
})

const listen = (server: NodeServer, settings: Settings): Promise<string> =>
  new Promise((resolve, reject) => {
    const { SPARROW_NODE_HOST: host, SPARROW_NODE_PORT: port } = settings
    server.http.once('error', (error: NodeJS.ErrnoException) => {
      const what = error.code === 'EADDRINUSE' ? 'is busy; set SPARROW_NODE_PORT to another' : error.message
      reject(new StartError(`Port ${port} on ${host} ${what}.`))
    })
    server.http.listen(port, host, () => {
      const bound = (server.http.address() as AddressInfo).port
      resolve(`http://${host.includes(':') ? `[${host}]` : host}:${bound}`)
    })
  })

const addGauges = (shop: Workshop, server: NodeServer): void => {
  const { engine, admission, journal, metrics, prefillSpeed } = shop
  metrics.addGauges({
    sparrow_running: { help: 'Runs the engine works on', read: () => admission.running },
    sparrow_waiting: { help: 'Runs that wait for the engine', read: () => admission.waiting },
    sparrow_kv_pages: { help: 'KV pages of 64 tokens', read: () => engine.stats().kvPages },
    sparrow_kv_pages_used: { help: 'KV pages held by running sequences', read: () => engine.stats().kvPagesUsed },
    sparrow_kv_pages_cached: { help: 'KV pages kept for reuse', read: () => engine.stats().kvPagesCached },
    sparrow_engine_steps: { help: 'Engine steps since the start', read: () => engine.stats().steps },
    sparrow_journal_open: { help: 'Runs opened and not yet closed', read: () => journal.openRuns },
    sparrow_journal_pending: { help: 'Receipts not yet acknowledged', read: () => journal.pending.size },
    sparrow_stream_backlog_bytes: { help: 'Bytes that readers have not taken', read: () => server.backlogBytes() },
    sparrow_prefill_tokens_per_second: { help: 'Measured prefill', read: () => prefillSpeed.tokensPerSecond },
  })
  metrics.addGauges(cacheGauges(engine))
  metrics.addCounters(cacheCounters(engine))
  metrics.addCounters({
    sparrow_spec_decode_num_draft_tokens_total: {
      help: 'Tokens guessed by the MTP layer and checked',
      read: () => engine.stats().draftTokens,
    },
    sparrow_spec_decode_num_accepted_tokens_total: {
      help: 'Tokens guessed by the MTP layer that were right',
      read: () => engine.stats().acceptedTokens,
    },
  })
}

const loadOf = ({ engine, admission, prefillSpeed }: Workshop): Load => {
  const { kvPages, kvPagesUsed } = engine.stats()
  const { running, waiting } = admission
  return { running, waiting, kvPages, kvPagesUsed, prefillTokensPerSecond: prefillSpeed.tokensPerSecond }
}

/** Starts a node; it registers by itself as soon as the edge is there. Errors: StartError, with what to do. */
export const startNode = async (
  settings: Settings,
  open: OpenEngine,
  onJournalFailure: (error: unknown) => void,
): Promise<RunningNode> => {
  const lock = await lockState(settings.SPARROW_STATE_DIR)
  try {
    return await assemble(settings, open, onJournalFailure, lock)
  } catch (error) {
    lock.release()
    throw error
  }
}

const assemble = async (
  settings: Settings,
  open: OpenEngine,
  onJournalFailure: (error: unknown) => void,
  lock: { release(): void },
): Promise<RunningNode> => {
  const stateDir = settings.SPARROW_STATE_DIR
  const identity = await loadIdentity(stateDir, settings.SPARROW_NODE_ID)
  const { nodeId } = identity
  const { tokenizer, chat, engine } = await openModel(open, settings)
  const journal = await Journal.start({ dir: join(stateDir, 'journal'), nodeId, onFailure: onJournalFailure })
  const metrics = new Metrics()
  const admission = new Admission(settings.SPARROW_QUEUE_MAX)
  const shop: Workshop = {
    ...{
      nodeId,
      model: settings.SPARROW_MODEL_NAME,
      chatFormat: chat.format,
      engine,
      tokenizer,
      journal,
      admission,
      metrics,
    },
    grammars: new Grammars({ tokenizer, ...engine.info }),
    prefillSpeed: new PrefillSpeed(),
    onClosed: () => shipper.notify(),
  }
  const shipper = new Shipper({
    ...{ edgeUrl: settings.SPARROW_EDGE_URL, identity, journal },
    deadLetterFile: join(stateDir, 'refused_receipts.jsonl'),
    onUnknown: () => link.forgotten(),
    onSettled: (outcome, count) => metrics.receipts(outcome, count),
  })
  const server = createNodeServer({
    shop,
    dispatchKey: () => link.dispatchKey,
    health: () => healthOf(shop, link.registered),
    pendingMax: settings.SPARROW_PENDING_MAX,
    ...patience(settings),
  })
  addGauges(shop, server)
  const address = await listen(server, settings)
  const link = new EdgeLink({
    ...{ edgeUrl: settings.SPARROW_EDGE_URL, joinToken: settings.SPARROW_JOIN_TOKEN, identity },
    registration: {
      address: settings.SPARROW_NODE_ADDRESS ?? address,
      model: settings.SPARROW_MODEL_NAME,
      ...registeredFormat(chat),
      contextTokens: engine.info.contextLength,
    },
    load: () => loadOf(shop),
    isDraining: () => admission.draining,
    onRegistered: () => shipper.edgeIsBack(),
  })
  log('info', 'listening', { node: nodeId, address, model: shop.model, engine: engine.info })
  void link.beat()

  const parts = { shop, journal, shipper, link, server, drainMs: settings.SPARROW_DRAIN_SECONDS * 1000 }
  return {
    nodeId,
    address,
    drain: async () => {
      await takeApart(parts)
      lock.release()
    },
  }
}

interface Parts {
  readonly shop: Workshop
  readonly journal: Journal
  readonly shipper: Shipper
  readonly link: EdgeLink
  readonly server: NodeServer
  readonly drainMs: number
}

const takeApart = async ({ shop, journal, shipper, link, server, drainMs }: Parts): Promise<void> => {
  const { admission, engine } = shop
  admission.drain()
  log('info', 'draining', { running: admission.running, waiting: admission.waiting })
  // Without waiting for the edge: runs must not lose time of theirs to it.
  const told = link.drain()
  const idle = await admission.idle(drainMs)
  if (!idle) {
    for (const generation of server.live) generation.shutDown()
    await admission.idle(LAST_RECEIPTS_MS)
  }
  server.http.close()
  await Promise.race([told, new Promise((done) => setTimeout(done, LAST_RECEIPTS_MS).unref())])
  const delivered = await shipper.flush(LAST_RECEIPTS_MS)
  await Promise.all([shipper.stop(), link.stop()])
  server.http.closeAllConnections()
  await engine.close()
  await shop.grammars.close()
  await journal.stop()
  log('info', 'stopped', { receiptsDelivered: delivered, pending: journal.pending.size })
}
