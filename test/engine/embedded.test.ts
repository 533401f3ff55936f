// The embedded model in the engine against PyTorch, where it was trained: token ids, next-token logits, and an answer.
// Tolerance: the observed difference is below 2e-5 on every instruction set. 1e-3 leaves room for other processors; the
// wrong rule for equal index scores alone moved a logit by 0.25.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { loadTokenizer, type Tokenizer } from '../../gpu-node/tokenizer.ts'
import { TOOL_PREAMBLE } from '../../schema/chat/deepseek_v32.ts'
import { collect, runnableIsas, withEngine } from './engines.ts'
import { GOLDENS, MODEL_DIR } from './golden.ts'

const TOLERANCE = 1e-3

interface Row {
  readonly position: number
  readonly ids: readonly number[]
  readonly logits: readonly number[]
}

interface Case {
  readonly name: string
  readonly tokens: readonly number[]
  readonly rows: readonly Row[]
}

const read = <T>(name: string): T => JSON.parse(readFileSync(join(GOLDENS, 'embedded', name), 'utf8')) as T

let tokenizer: Tokenizer
let isas: string[] = []
beforeAll(async () => {
  tokenizer = await loadTokenizer(MODEL_DIR)
  isas = await runnableIsas(MODEL_DIR)
})

test('the tokenizer gives the ids that the model was trained with, and its bytes give the text back', async () => {
  const texts = read<{ text: string; ids: number[] }[]>('tokenizer.json')
  expect(texts.length).toBeGreaterThan(200)
  for (const { text, ids } of texts) {
    expect(Array.from((await tokenizer.encode(text)).ids), JSON.stringify(text)).toEqual(ids)
    const bytes = Buffer.concat(ids.map((id) => tokenizer.textBytes[id] ?? new Uint8Array()))
    expect(bytes.toString('utf8')).toBe(text)
  }
})

test('every byte is a token', () => {
  const single = tokenizer.tokenBytes.filter((bytes) => bytes.length === 1).map((bytes) => bytes[0])
  expect(new Set(single).size).toBe(256)
})

test('the tool preamble is the one of the training', () => {
  expect(readFileSync(join(MODEL_DIR, 'train/tool_preamble.txt'), 'utf8')).toBe(TOOL_PREAMBLE)
})

describe('next-token logits as in PyTorch', () => {
  test.each(read<Case[]>('logits.json').map((golden) => [golden.name, golden] as const))('%s', async (_, golden) => {
    for (const isa of isas) {
      await withEngine({ modelDir: MODEL_DIR, isa }, ({ info, evaluate }) => {
        const { logits } = evaluate(Int32Array.from(golden.tokens), 256, false)
        for (const { position, ids, logits: wanted } of golden.rows) {
          const ours = ids.map((id) => logits[position * info.vocabSize + id] ?? Number.NaN)
          const worst = Math.max(...ours.map((value, i) => Math.abs(value - (wanted[i] ?? 0))))
          expect(worst, `${isa}, position ${position}`).toBeLessThan(TOLERANCE)
        }
      })
    }
  })
})

test('answers a sum', async () => {
  const { ids } = await tokenizer.encode('<｜begin▁of▁sentence｜><｜User｜>What is 12 + 34?<｜Assistant｜></think>')
  await withEngine({ modelDir: MODEL_DIR, tokenBytes: [...tokenizer.tokenBytes] }, async (engine) => {
    const outcome = await collect(engine, { tokens: ids, maxTokens: 80 })
    const text = Buffer.concat(outcome.ids.map((id) => tokenizer.tokenBytes[id] ?? new Uint8Array())).toString('utf8')
    expect(outcome.end.reason).toBe('stop_token')
    expect(text).toMatch(/So 12 \+ 34 = 46$/)
  })
})
