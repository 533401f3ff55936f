// All texts of a grammar as the grammar library itself takes them, byte by byte: what the masks of a vocabulary are made of.
import { createRequire, registerHooks } from 'node:module'
import { charOfByte } from '../../gpu-node/tokenizer.ts'

// As gpu-node/grammar_worker.ts loads it.
registerHooks({
  load: (url, context, next) =>
    next(url, url.includes('/@mlc-ai/web-xgrammar/') ? { ...context, format: 'commonjs' } : context),
})
const { GrammarCompiler, GrammarMatcher, TokenizerInfo } = createRequire(import.meta.url)(
  '@mlc-ai/web-xgrammar',
) as typeof import('@mlc-ai/web-xgrammar')

const END = 256
const chars = charOfByte()
const vocab = [...Array.from({ length: END }, (_, byte) => chars[byte] ?? ''), '<end>']
const compilerOf = async () => {
  const info = await TokenizerInfo.createTokenizerInfo(vocab, 'byte_level', false, vocab.length, [END])
  return GrammarCompiler.createGrammarCompiler(info, false)
}
let compiler: ReturnType<typeof compilerOf> | undefined

/** At most `most` texts and a few, of at most `bytesMax` bytes; one that goes on comes with an ellipsis. */
export const languageOf = async (text: string, most: number, bytesMax = 100): Promise<string[]> => {
  compiler ??= compilerOf()
  const compiled = await (await compiler).compileGrammar(text)
  const matcher = await GrammarMatcher.createGrammarMatcher(compiled)
  const found: string[] = []
  const walk = async (bytes: readonly number[]): Promise<void> => {
    if (found.length > most) return
    if (bytes.length > bytesMax) {
      found.push(`${Buffer.from(bytes).toString()}...`)
      return
    }
    matcher.reset()
    for (const byte of bytes) matcher.acceptToken(byte)
    const mask = await matcher.getNextTokenBitmask()
    const next = vocab.flatMap((_, id) => (((mask[id >> 5] ?? 0) >>> (id & 31)) & 1 ? [id] : []))
    for (const id of next)
      if (id === END) found.push(Buffer.from(bytes).toString())
      else await walk([...bytes, id])
  }
  await walk([])
  matcher.dispose()
  compiled.dispose()
  return found.sort()
}
