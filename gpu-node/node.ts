// A node, put together: engine, tokenizer, journal, shipper, tie to the edge, HTTP server; and taken apart in the right order.
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type Load, PATHS } from '../schema/wire.ts'
import { Admission } from './admission.ts'
import { cacheCounters, cacheGauges } from './cache_metrics.ts'
import { SegmentChain } from './chain.ts'
import { chatFormatOf } from './chat_template.ts'
import { type Settings, StartError } from './config.ts'
import { type Engine, EngineError } from './engine/engine.ts'
import { createFront, type Front } from './front.ts'
import type { Workshop } from './generate.ts'
import { Grammars } from './grammar.ts'
import { EdgeLink } from './heartbeat.ts'
import { loadIdentity, lockState } from './identity.ts'
import { Journal } from './journal.ts'
import { log } from './log.ts'
import { Metrics, PrefillSpeed } from './metrics.ts'
import { LOADING, type NodeState, readinessOf } from './probes.ts'
import { scheduleCounters } from './schedule_metrics.ts'
import { createRunServer, type RunServer } from './server.ts'
import { Shipper } from './shipper.ts'
import { loadTokenizer, type Tokenizer } from './tokenizer.ts'
import { Watchdog } from './watchdog.ts'

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

const listen = ({ http }: Front, settings: Settings): Promise<string> =>
  new Promise((resolve, reject) => {
    const { SPARROW_NODE_HOST: host, SPARROW_NODE_PORT: port } = settings
    http.once('error', (error: NodeJS.ErrnoException) => {
      const what = error.code === 'EADDRINUSE' ? 'is busy; set SPARROW_NODE_PORT to another' : error.message
      reject(new StartError(`Port ${port} on ${host} ${what}.`))
    })
    http.listen(port, host, () => {
      const bound = (http.address() as AddressInfo).port
      resolve(`http://${host.includes(':') ? `[${host}]` : host}:${bound}`)
    })
  })

const addGauges = (shop: Workshop, server: RunServer): void => {
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
  metrics.vllm.open(shop.model, {
    running: () => admission.running,
    waiting: () => admission.waiting,
    cacheUsage: () => engine.stats().kvPagesUsed / engine.stats().kvPages,
    preemptions: () => engine.stats().preemptions,
  })
  metrics.addGauges(cacheGauges(engine))
  metrics.addCounters(cacheCounters(engine))
  metrics.addCounters(scheduleCounters(engine))
  metrics.addCounters({
    sparrow_prefix_prompt_tokens_total: {
      help: 'Prompt tokens of started runs',
      read: () => metrics.prefix.promptTokens,
    },
    sparrow_prefix_cached_tokens_total: { help: 'Of these, in the cache', read: () => metrics.prefix.cachedTokens },
    sparrow_prefix_predicted_tokens_total: {
      help: 'Of these, predicted by the edge to be in the cache',
      read: () => metrics.prefix.predictedTokens,
    },
    sparrow_prefix_predicted_right_tokens_total: {
      help: 'Predicted and in the cache',
      read: () => metrics.prefix.predictedRightTokens,
    },
  })
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

const loadOf = ({ engine, admission, metrics, prefillSpeed }: Workshop): Load => {
  const { kvPages, kvPagesUsed } = engine.stats()
  const { running, waiting } = admission
  const { promptTokens, cachedTokens, predictedTokens, predictedRightTokens } = metrics.prefix
  return {
    ...{ running, waiting, kvPages, kvPagesUsed, prefillTokensPerSecond: prefillSpeed.tokensPerSecond },
    ...{ promptTokens, cachedTokens, predictedTokens, predictedRightTokens },
  }
}

/** Starts a node; it registers by itself as soon as the edge is there. Errors: StartError, with what to do. */
export const startNode = async (
  settings: Settings,
  open: OpenEngine,
  onJournalFailure: (error: unknown) => void,
): Promise<RunningNode> => {
  const lock = await lockState(settings.SPARROW_STATE_DIR)
  const metrics = new Metrics()
  // What probes read: a node that loads, until its parts are together.
  const view: View = { state: () => LOADING, stillMs: () => 0, health: () => ({}) }
  const front = createFront({
    metrics,
    live: () => {
      const { stuck } = view.state()
      return { alive: !stuck, engineStillMs: Math.round(view.stillMs()) }
    },
    readiness: () => readinessOf(view.state()),
    health: () => view.health(),
  })
  try {
    const address = await listen(front, settings)
    log('info', 'loading', { address, model: settings.SPARROW_MODEL_DIR })
    const loaded = await load(settings, open, onJournalFailure)
    const drain = assemble({ settings, loaded, metrics, front, view, address })
    const { nodeId } = loaded.identity
    return { nodeId, address, drain: () => drain().finally(lock.release) }
  } catch (error) {
    front.http.close()
    front.http.closeAllConnections()
    lock.release()
    throw error
  }
}

interface View {
  state: () => NodeState
  stillMs: () => number
  health: () => Readonly<Record<string, unknown>>
}

/** What takes its time, or can fail. */
const load = async (settings: Settings, open: OpenEngine, onJournalFailure: (error: unknown) => void) => {
  const stateDir = settings.SPARROW_STATE_DIR
  const identity = await loadIdentity(stateDir, settings.SPARROW_NODE_ID)
  const tokenizer = await loadTokenizer(settings.SPARROW_MODEL_DIR)
  const { SPARROW_CHAT_FORMAT: setting, SPARROW_MODEL_DIR: modelDir } = settings
  const chat = await chatFormatOf(setting, modelDir, tokenizer.specialIds.keys())
  const engine = await openEngine(open, settings, tokenizer)
  const { nodeId } = identity
  const journal = await Journal.start({ dir: join(stateDir, 'journal'), nodeId, onFailure: onJournalFailure })
  const chain = await SegmentChain.load(stateDir, nodeId)
  return { identity, tokenizer, chat, engine, journal, chain }
}

interface Assembly {
  readonly settings: Settings
  readonly loaded: Awaited<ReturnType<typeof load>>
  readonly metrics: Metrics
  readonly front: Front
  readonly view: View
  readonly address: string
}

/** Returns what takes it apart. */
const assemble = ({ settings, loaded, metrics, front, view, address }: Assembly): (() => Promise<void>) => {
  const { identity, tokenizer, chat, engine, journal, chain } = loaded
  const { nodeId } = identity
  const { SPARROW_EDGE_URL: edgeUrl, SPARROW_PENDING_MAX: pendingMax, SPARROW_MODEL_NAME: model } = settings
  const admission = new Admission(settings.SPARROW_QUEUE_MAX, settings.SPARROW_QUEUE_SHARE)
  const shop: Workshop = {
    ...{ nodeId, model, chatFormat: chat.format, engine, tokenizer, journal, admission, metrics },
    grammars: new Grammars({ tokenizer, ...engine.info }),
    prefillSpeed: new PrefillSpeed(),
    onClosed: () => shipper.notify(),
  }
  const shipper = new Shipper({
    ...{ edgeUrl, identity, journal, chain },
    deadLetterFile: join(settings.SPARROW_STATE_DIR, 'refused_receipts.jsonl'),
    onUnknown: () => link.forgotten(),
    onSettled: (outcome, count) => metrics.receipts(outcome, count),
  })
  const stallMs = settings.SPARROW_STALL_SECONDS * 1000
  const keepAliveMs = settings.SPARROW_KEEP_ALIVE_SECONDS * 1000
  const server = createRunServer({ shop, dispatchKeys: () => link.dispatchKeys, pendingMax, stallMs, keepAliveMs })
  const watchdog = new Watchdog(engine, settings.SPARROW_STUCK_SECONDS * 1000)
  addGauges(shop, server)
  const link = new EdgeLink({
    ...{ edgeUrl, joinToken: settings.SPARROW_JOIN_TOKEN, identity },
    registration: {
      ...{ address: settings.SPARROW_NODE_ADDRESS ?? address, model, chatFormat: chat.format.name },
      ...(chat.template ? { template: chat.template } : {}),
      contextTokens: engine.info.contextLength,
    },
    load: () => loadOf(shop),
    // To the edge a stuck engine is a node that takes nothing more; unlike a draining one it may come back.
    isDraining: () => admission.draining || watchdog.stuck,
    onRegistered: () => shipper.edgeIsBack(),
    // What it owes is still taken: one that starts again delivers what its journal kept.
    onRemoved: () => shipper.edgeIsBack(),
  })
  view.stillMs = () => watchdog.stillMs
  view.state = () => ({
    ...{ loading: false, draining: admission.draining, stuck: watchdog.stuck, journalFailed: journal.failed },
    ...{ receiptsWait: journal.pending.size > pendingMax, registered: link.registered },
  })
  view.health = () => {
    const { draining, running, waiting } = admission
    return { nodeId, model, registered: link.registered, draining, running, waiting, engine: engine.info }
  }
  front.open({ [PATHS.run]: server.run, [PATHS.tokenize]: server.count, [PATHS.abandon]: server.abandon })
  log('info', 'ready', { node: nodeId, address, model, engine: engine.info })
  void link.beat()
  const drainMs = settings.SPARROW_DRAIN_SECONDS * 1000
  return () => takeApart({ shop, journal, shipper, link, server, front, watchdog, drainMs })
}

interface Parts {
  readonly shop: Workshop
  readonly journal: Journal
  readonly shipper: Shipper
  readonly link: EdgeLink
  readonly server: RunServer
  readonly front: Front
  readonly watchdog: Watchdog
  readonly drainMs: number
}

/** Resolves with `work`, or after `ms`. */
const within = (ms: number, work: Promise<void>): Promise<void> =>
  Promise.race([work, new Promise<void>((done) => setTimeout(done, Math.max(0, ms)).unref())])

const takeApart = async (parts: Parts): Promise<void> => {
  const { shop, journal, shipper, link, server, front, watchdog, drainMs } = parts
  const { admission, engine } = shop
  admission.drain()
  log('info', 'draining', { running: admission.running, waiting: admission.waiting })
  // Without waiting for the edge: runs must not lose time of theirs to it.
  const told = link.drain()
  const deadline = performance.now() + drainMs
  const idle = await admission.idle(drainMs)
  if (!idle) {
    admission.close()
    for (const generation of server.live) generation.shutDown()
    await admission.idle(LAST_RECEIPTS_MS)
  }
  await within(LAST_RECEIPTS_MS, told)
  const delivered = await shipper.flush(LAST_RECEIPTS_MS)
  await Promise.all([shipper.stop(), link.stop()])
  // What was computed is paid for: its readers may take it until the time is over.
  await within(deadline - performance.now(), server.taken())
  // Probes are answered until here; runs were refused all the time.
  front.http.close()
  front.http.closeAllConnections()
  watchdog.stop()
  await engine.close()
  await shop.grammars.close()
  await journal.stop()
  log('info', 'stopped', { receiptsDelivered: delivered, pending: journal.pending.size })
}
