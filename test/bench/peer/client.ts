// Speaks to driver.cc: one line out, one line of JSON back. The driver idles, without a thread of its own, in between.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import type { Installation, PeerModel } from './install.ts'

const seconds = z.number().positive()
const fillSchema = z.object({ depth: z.number(), seconds })
const timeSchema = z.object({ seconds })
const batchSchema = z.object({ prefill: seconds, decode: seconds })
const answersSchema = z.object({ top: z.array(z.tuple([z.number(), z.number()])) })

/** All times in seconds. */
export interface Peer {
  /** Grows the cache by `count` tokens. */
  fill(count: number): Promise<z.infer<typeof fillSchema>>
  /** Tokens after what the cache holds; it holds the same afterwards. */
  prefill(count: number): Promise<number>
  decode(count: number): Promise<number>
  /** As llama-batched-bench: so many prompts of their own, then a token of each a step. */
  batch(sequences: number, prompt: number, steps: number): Promise<z.infer<typeof batchSchema>>
  /** The likeliest next tokens and their log-probabilities; empties the cache. */
  answers(top: number, tokens: readonly number[]): Promise<readonly (readonly [number, number])[]>
  close(): Promise<void>
}

export const startPeer = async (
  { driver, libraries }: Installation,
  { gguf }: PeerModel,
  threads: number,
  context: number,
): Promise<Peer> => {
  const child = spawn(driver, [libraries, gguf, String(threads), String(context)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = new Promise<void>((resolve) => {
    child.on('error', () => resolve())
    child.on('exit', () => resolve())
  })
  child.stdin.on('error', () => {}) // a dead driver shows as the end of its answers
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const answer = async <T>(schema: z.ZodType<T>): Promise<T> => {
    const { value, done } = await lines.next()
    if (done) throw new Error('the llama.cpp driver died')
    return schema.parse(JSON.parse(value))
  }
  const ask = <T>(command: string, schema: z.ZodType<T>): Promise<T> => {
    child.stdin.write(`${command}\n`)
    return answer(schema)
  }
  await answer(fillSchema)
  return {
    fill: (count) => ask(`fill ${count}`, fillSchema),
    prefill: async (count) => (await ask(`prefill ${count}`, timeSchema)).seconds,
    decode: async (count) => (await ask(`decode ${count}`, timeSchema)).seconds,
    batch: (sequences, prompt, steps) => ask(`batch ${sequences} ${prompt} ${steps}`, batchSchema),
    answers: async (top, tokens) => (await ask(`answers ${top} ${tokens.join(' ')}`, answersSchema)).top,
    close: () => {
      child.stdin.end()
      return ended
    },
  }
}
