// Grammars of answers, off every other thread: threads that compile and mask, and the sessions of runs on them. A thread
// that a grammar keeps too long is replaced, and its other sessions go on where they were.
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { AnswerGrammar } from '../schema/chat/chat_format.ts'
import { fail, ok, type Result } from '../schema/errors.ts'
import type { FromGrammar, GrammarVocab, ToGrammar } from './grammar_messages.ts'
import { log } from './log.ts'
import type { Tokenizer } from './tokenizer.ts'

const THREADS_MAX = Math.min(2, availableParallelism())
const COMPILE_MS = 20_000
/** A session that lost so many threads is given up: its own grammar may be what ends them. */
const LOSSES_MAX = 2

export interface GrammarSession {
  /** Masks come as they are made, that of position 0 at once; `onFail` at most once, and nothing behind it. */
  start(onMask: (position: number, words: Uint32Array) => void, onFail: (message: string) => void): void
  /** Tokens that were sampled, in order. */
  accept(ids: readonly number[]): void
  close(): void
}

export interface GrammarOptions {
  readonly tokenizer: Pick<Tokenizer, 'textBytes' | 'tokenBytes'>
  /** Ids of the model, padding included. */
  readonly vocabSize: number
  readonly eosTokenIds: readonly number[]
  readonly compileMs?: number
}

const vocabOf = ({ tokenizer, vocabSize, eosTokenIds }: GrammarOptions): GrammarVocab => {
  const text = Array.from({ length: vocabSize }, (_, id) => tokenizer.textBytes[id] ?? new Uint8Array())
  const isSpecial = (id: number): boolean => tokenizer.tokenBytes[id]?.length === 0 && (text[id]?.length ?? 0) > 0
  return { text, special: [...text.keys()].filter(isSpecial), eos: eosTokenIds }
}

/** One run's way through its grammar. */
class Session implements GrammarSession {
  readonly id: number
  readonly grammar: AnswerGrammar
  readonly opened = Promise.withResolvers<Result<GrammarSession>>()
  /** All tokens so far, for a thread that has to take over. */
  readonly ids: number[] = []
  thread: Thread
  /** Threads it has lost. */
  losses = 0
  #first: { position: number; words: Uint32Array } | undefined
  #failure: string | undefined
  #onMask: ((position: number, words: Uint32Array) => void) | undefined
  #onFail: ((message: string) => void) | undefined
  #isOpen = false
  #timer: NodeJS.Timeout | undefined

  constructor(id: number, grammar: AnswerGrammar, thread: Thread) {
    this.id = id
    this.grammar = grammar
    this.thread = thread
  }

  /** Sends the grammar to the thread; `onLate` when it keeps the thread too long. */
  begin(ms: number, onLate: () => void): void {
    this.#timer ??= this.#isOpen ? undefined : setTimeout(onLate, ms)
    this.thread.sessions.set(this.id, this)
    this.thread.texts.add(this.grammar.text)
    this.thread.send({ kind: 'open', id: this.id, grammar: this.grammar, ids: this.ids })
  }

  start(onMask: (position: number, words: Uint32Array) => void, onFail: (message: string) => void): void {
    this.#onMask = onMask
    this.#onFail = onFail
    if (this.#first) onMask(this.#first.position, this.#first.words)
    if (this.#failure !== undefined) onFail(this.#failure)
    this.#first = undefined
  }

  accept(ids: readonly number[]): void {
    this.ids.push(...ids)
    this.thread.send({ kind: 'accept', id: this.id, ids })
  }

  close(): void {
    clearTimeout(this.#timer)
    if (this.thread.sessions.delete(this.id)) this.thread.send({ kind: 'close', id: this.id })
  }

  take(message: FromGrammar): void {
    clearTimeout(this.#timer)
    if (message.kind === 'failed') {
      this.fail(message.message, message.isRefused)
      return
    }
    this.#isOpen = true
    this.opened.resolve(ok(this))
    if (this.#onMask) this.#onMask(message.position, message.words)
    else this.#first = message
  }

  fail(message: string, isRefused: boolean): void {
    clearTimeout(this.#timer)
    this.thread.sessions.delete(this.id)
    if (isRefused && !this.#isOpen) {
      const what = `This answer's grammar cannot be used: ${message}.`
      this.opened.resolve(fail('invalid_request', { message: what }))
      return
    }
    this.opened.resolve(fail('internal_error', { internal: message }))
    this.#failure = message
    this.#onFail?.(message)
  }
}

/** A grammar thread and what is on it. */
class Thread {
  readonly sessions = new Map<number, Session>()
  /** Grammars it was given: it may have them compiled still. */
  readonly texts = new Set<string>()
  readonly #worker: Worker
  isStopping = false

  constructor(vocab: GrammarVocab, onGone: (thread: Thread) => void) {
    const url = new URL('./grammar_worker.ts', import.meta.url)
    this.#worker = new Worker(url, { workerData: vocab, stdout: true, stderr: true })
    // What the library has to say it prints.
    for (const stream of [this.#worker.stdout, this.#worker.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        log('warn', 'grammar_library', { says: text.trim().slice(0, 500) })
      })
    }
    // Between runs it must not keep the process alive; a run does that itself.
    this.#worker.unref()
    this.#worker.on('message', (message: FromGrammar) => {
      this.sessions.get(message.id)?.take(message)
      // A grammar that the library cannot read aborts it; its memory is not to be trusted then.
      if (message.kind === 'failed' && message.isRefused) void this.stop()
    })
    this.#worker.on('error', (error) => log('error', 'grammar_thread_failed', { error: error.message }))
    this.#worker.on('exit', () => onGone(this))
  }

  send(message: ToGrammar): void {
    this.#worker.postMessage(message)
  }

  async stop(): Promise<void> {
    this.isStopping = true
    await this.#worker.terminate()
  }
}

export class Grammars {
  readonly #options: GrammarOptions
  readonly #threads = new Set<Thread>()
  #vocab: GrammarVocab | undefined
  #nextId = 1
  #closed = false

  constructor(options: GrammarOptions) {
    this.#options = options
  }

  /** Compiles and waits for the first mask. Errors: invalid_request where the grammar cannot be used. */
  open(grammar: AnswerGrammar): Promise<Result<GrammarSession>> {
    const session = new Session(this.#nextId++, grammar, this.#threadFor(grammar.text))
    this.#begin(session)
    return session.opened.promise
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#threads].map((thread) => thread.stop()))
  }

  #begin(session: Session): void {
    const ms = this.#options.compileMs ?? COMPILE_MS
    session.begin(ms, () => {
      session.fail(`it takes longer than ${ms / 1000} s to compile`, true)
      void session.thread.stop()
    })
  }

  /** One that knows the grammar; else one whose sessions no compilation can keep waiting; else the least busy. */
  #threadFor(text: string): Thread {
    const threads = [...this.#threads]
      .filter(({ isStopping }) => !isStopping)
      .sort((a, b) => a.sessions.size - b.sessions.size)
    const knowing = threads.find(({ texts }) => texts.has(text))
    if (knowing) return knowing
    const [least] = threads
    if (least && (least.sessions.size === 0 || threads.length >= THREADS_MAX)) return least
    this.#vocab ??= vocabOf(this.#options)
    const thread = new Thread(this.#vocab, (gone) => this.#replace(gone))
    this.#threads.add(thread)
    return thread
  }

  /** Sessions of a thread that is gone go on with another. */
  #replace(gone: Thread): void {
    this.#threads.delete(gone)
    for (const session of gone.sessions.values()) {
      if (this.#closed) session.fail('the node stops', false)
      else if (++session.losses > LOSSES_MAX) session.fail('the grammar thread failed', false)
      else {
        session.thread = this.#threadFor(session.grammar.text)
        this.#begin(session)
      }
    }
  }
}
