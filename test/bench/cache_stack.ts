// The cache as a client sees it: the whole stack, streamed answers, the node restarted in between.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI from 'openai'
import { loadTokenizer } from '../../gpu-node/tokenizer.ts'
import { firstKey } from '../../scripts/first_account.ts'
import { bootStack } from '../../scripts/stack.ts'
import { freePort } from '../e2e/stack.ts'

const WORDS = 'the a of to and river stone light under before seven copper morning letter quiet harbour'.split(' ')

/** About `tokens` tokens of words in an order that `seed` decides. */
const textOf = async (modelDir: string, tokens: number, seed: number): Promise<string> => {
  const tokenizer = await loadTokenizer(modelDir)
  let state = seed
  const words: string[] = []
  const next = (): void => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    words.push(WORDS[(state >>> 16) % WORDS.length] ?? '')
  }
  for (let i = 0; i < 256; i++) next()
  const each = (await tokenizer.encode(words.join(' '))).ids.length / words.length
  while (words.length * each < tokens) next()
  return words.join(' ')
}

interface First {
  readonly milliseconds: number
  readonly cached: number
}

const ask = async (client: OpenAI, content: string): Promise<First> => {
  const begin = performance.now()
  const stream = await client.chat.completions.create({
    ...{ model: 'sparrow-mini', messages: [{ role: 'user', content }], temperature: 0, max_tokens: 2 },
    ...{ stream: true, stream_options: { include_usage: true } },
  })
  let milliseconds = Number.NaN
  let cached = 0
  for await (const chunk of stream) {
    if (Number.isNaN(milliseconds) && (chunk.choices[0]?.delta.content || chunk.choices[0]?.finish_reason))
      milliseconds = performance.now() - begin
    cached = chunk.usage?.prompt_tokens_details?.cached_tokens ?? cached
  }
  return { milliseconds, cached }
}

export const throughStack = async (modelDir: string, tokens: number, repeats: number) => {
  const stateDir = mkdtempSync(join(tmpdir(), 'sparrow-bench-'))
  const nodeEnv = { SPARROW_MODEL_DIR: modelDir }
  const stack = await bootStack({ stateDir, edgePort: await freePort(), nodePort: await freePort(), nodeEnv })
  try {
    const apiKey = await firstKey(stateDir, stack.baseUrl, stack.secrets, 'sparrow-mini')
    const client = new OpenAI({ baseURL: `${stack.baseUrl}/v1`, apiKey, maxRetries: 0 })
    const rows: Record<'cold' | 'memory' | 'disk' | 'short', First[]> = { cold: [], memory: [], disk: [], short: [] }
    const short = () => ask(client, 'What is the capital of France?')
    await short()
    for (let i = 0; i < repeats; i++) {
      const text = await textOf(modelDir, tokens, i + 1)
      rows.cold.push(await ask(client, text))
      rows.memory.push(await ask(client, text))
      await stack.restartNode()
      await short()
      rows.disk.push(await ask(client, text))
      rows.short.push(await short())
    }
    return rows
  } finally {
    await stack.stop()
    rmSync(stateDir, { recursive: true })
  }
}
