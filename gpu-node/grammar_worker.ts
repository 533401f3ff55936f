// The thread that compiles grammars and makes masks of them, with the kept library (XGrammar, WebAssembly). Nothing here
// knows of runs or engines: grammar and tokens in, masks out.
import { createRequire, registerHooks } from 'node:module'
import { parentPort, workerData } from 'node:worker_threads'
import type { CompiledGrammar, GrammarCompiler, GrammarMatcher } from '@mlc-ai/web-xgrammar'
import type { FromGrammar, GrammarVocab, ToGrammar } from './grammar_messages.ts'
import { charOfByte } from './tokenizer.ts'
import { isUtf8Part, LIMITED_LEADS, mayFollow } from './utf8_tokens.ts'

const COMPILED_MAX = 32

// The package says that it is made of ES modules; its one file is CommonJS.
registerHooks({
  load: (url, context, next) =>
    next(url, url.includes('/@mlc-ai/web-xgrammar/') ? { ...context, format: 'commonjs' } : context),
})
const {
  Grammar,
  GrammarCompiler: Compiler,
  GrammarMatcher: Matcher,
  TokenizerInfo,
} = createRequire(import.meta.url)('@mlc-ai/web-xgrammar') as typeof import('@mlc-ai/web-xgrammar')

const vocab = workerData as GrammarVocab
const special = new Set(vocab.special)
const chars = charOfByte()

/** A vocabulary in which mark n is the byte n + 1 and no other token holds one; empty tokens are never allowed. */
const spelled = (marks: readonly string[]): string[] =>
  vocab.text.map((bytes, id) => {
    const mark = special.has(id) ? marks.indexOf(Buffer.from(bytes).toString()) : -1
    if (mark >= 0) return chars[mark + 1] ?? ''
    if (special.has(id) || !isUtf8Part(bytes) || bytes.some((byte) => byte > 0 && byte <= marks.length)) return ''
    return Array.from(bytes, (byte) => chars[byte] ?? '').join('')
  })

/** By first byte of a character whose second is limited: the tokens that may follow it. */
const followers = new Map(
  LIMITED_LEADS.map((lead) => {
    const words = new Uint32Array(Math.ceil(vocab.text.length / 32))
    vocab.text.forEach((bytes, id) => {
      const [first] = bytes
      if (first !== undefined && mayFollow(lead, first)) words[id >> 5] = (words[id >> 5] ?? 0) | (1 << (id & 31))
    })
    return [lead, words] as const
  }),
)

const compilers = new Map<string, Promise<GrammarCompiler>>()

const compilerFor = (marks: readonly string[]): Promise<GrammarCompiler> => {
  const key = JSON.stringify(marks)
  const known = compilers.get(key)
  if (known) return known
  const made = (async () => {
    const words = spelled(marks)
    const info = await TokenizerInfo.createTokenizerInfo(words, 'byte_level', false, words.length, [...vocab.eos])
    return Compiler.createGrammarCompiler(info, false)
  })()
  compilers.set(key, made)
  return made
}

/** Compiled grammars by marks and text, oldest out first. */
const compiled = new Map<string, CompiledGrammar>()

const compile = async ({ text, marks }: { text: string; marks: readonly string[] }): Promise<CompiledGrammar> => {
  const key = JSON.stringify([marks, text])
  let found = compiled.get(key)
  compiled.delete(key)
  if (!found) {
    const compiler = await compilerFor(marks)
    const grammar = await Grammar.fromEBNF(text)
    found = await compiler.compileGrammar(grammar)
    grammar.dispose()
  }
  compiled.set(key, found)
  for (const [old, item] of compiled) {
    if (compiled.size <= COMPILED_MAX) break
    compiled.delete(old)
    item.dispose()
  }
  return found
}

interface Session {
  readonly matcher: GrammarMatcher
  position: number
  /** Tokens that may follow the last byte, where that is limited. */
  followers: Uint32Array | undefined
}

const sessions = new Map<number, Session>()

const reply = (message: FromGrammar): void =>
  parentPort?.postMessage(message, message.kind === 'mask' ? [message.words.buffer] : [])

const failed = (id: number, isRefused: boolean, error: unknown): void => {
  sessions.get(id)?.matcher.dispose()
  sessions.delete(id)
  const message = error instanceof Error ? error.message : `the grammar library failed: ${String(error)}`
  reply({ kind: 'failed', id, isRefused, message })
}

/** Takes tokens that were sampled and tells what may follow them, unless they end the answer. */
const advance = async (id: number, session: Session, ids: readonly number[]): Promise<void> => {
  const { matcher } = session
  for (const token of ids) {
    if (!matcher.acceptToken(token)) throw new Error(`token ${token} is not in the grammar`)
    session.position++
    session.followers = followers.get(vocab.text[token]?.at(-1) ?? 0)
  }
  if (matcher.isTerminated()) return
  // Copied before it is handed over: the library's own array is not ours to transfer.
  const words = Uint32Array.from(await matcher.getNextTokenBitmask(), (word) => word >>> 0)
  session.followers?.forEach((allowed, i) => {
    words[i] = (words[i] ?? 0) & allowed
  })
  reply({ kind: 'mask', id, position: session.position, words })
}

const obey = async (message: ToGrammar): Promise<void> => {
  const { id } = message
  if (message.kind === 'close') {
    sessions.get(id)?.matcher.dispose()
    sessions.delete(id)
    return
  }
  if (message.kind === 'open') {
    try {
      const session = {
        matcher: await Matcher.createGrammarMatcher(await compile(message.grammar)),
        position: 0,
        followers: undefined,
      }
      sessions.set(id, session)
    } catch (error) {
      return failed(id, true, error)
    }
  }
  const session = sessions.get(id)
  if (!session) return
  try {
    await advance(id, session, message.ids)
  } catch (error) {
    failed(id, false, error)
  }
}

// One message at a time: the library's calls are asynchronous in form only.
let last = Promise.resolve()
parentPort?.on('message', (message: ToGrammar) => {
  last = last.then(() => obey(message))
})
