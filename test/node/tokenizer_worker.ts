// A thread with little memory that loads tokenizers and encodes with them, and says how each attempt ended.
import { parentPort } from 'node:worker_threads'
import { StartError } from '../../gpu-node/config.ts'
import { loadTokenizer } from '../../gpu-node/tokenizer.ts'

export interface Attempt {
  readonly dir: string
  readonly text: string
}

export type Ending =
  | { readonly kind: 'encoded'; readonly text: string; readonly wellFormed: boolean }
  | { readonly kind: 'refused'; readonly message: string }
  | { readonly kind: 'crashed'; readonly message: string }

const attempt = async ({ dir, text }: Attempt): Promise<Ending> => {
  try {
    const tokenizer = await loadTokenizer(dir)
    const { ids, bytes } = await tokenizer.encode(text)
    const parts = Array.from(ids, (id) => tokenizer.textBytes[id] ?? new Uint8Array())
    const wellFormed =
      ids.every((id) => id >= 0 && id < tokenizer.vocabSize) && parts.every((part, i) => part.length === bytes[i])
    return { kind: 'encoded', text: Buffer.concat(parts).toString(), wellFormed }
  } catch (error) {
    if (error instanceof StartError) return { kind: 'refused', message: error.message }
    return { kind: 'crashed', message: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
}

parentPort?.on('message', async (message: Attempt) => parentPort?.postMessage(await attempt(message)))
