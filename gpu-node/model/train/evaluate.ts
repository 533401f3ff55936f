// Greedy exact match on held-out questions, through the native engine: node evaluate.ts heldout.jsonl
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { openNativeEngine } from '../../engine/native.ts'
import { loadTokenizer } from '../../tokenizer.ts'

interface Case {
  readonly skill: string
  readonly prompt: string
  readonly answer: string
}

const MODEL_DIR = fileURLToPath(new URL('..', import.meta.url))
const EOS = '<｜end▁of▁sentence｜>'

const tokenizer = await loadTokenizer(MODEL_DIR)
const engine = await openNativeEngine({ modelDir: MODEL_DIR, tokenBytes: tokenizer.tokenBytes })

const answer = async (prompt: string): Promise<string> => {
  const tokens = (await tokenizer.encode(prompt)).ids
  const ids = await new Promise<number[]>((resolve) => {
    const out: number[] = []
    const spec = { tokens, cacheSalt: '', maxTokens: 200, temperature: 0, topP: 1, seed: 0n, stop: [] }
    engine.submit(spec, (events) => {
      for (const event of events) {
        if (event.kind === 'tokens') out.push(...event.ids)
        if (event.kind === 'end') resolve(out)
      }
    })
  })
  return Buffer.concat(ids.map((id) => tokenizer.textBytes[id] ?? Buffer.of())).toString()
}

/** Reasoning may go its own way; what follows it must be exact. */
const isRight = (given: string, wanted: string): boolean =>
  (given.split('</think>').at(-1) ?? '').replace(EOS, '') === wanted

const cases = readFileSync(process.argv[2] ?? 'heldout.jsonl', 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Case)
const right = new Map<string, { right: number; all: number; miss: string }>()
for (const { skill, prompt, answer: wanted } of cases) {
  const given = await answer(prompt)
  const row = right.get(skill) ?? { right: 0, all: 0, miss: '' }
  const ok = isRight(given, wanted)
  right.set(skill, {
    right: row.right + Number(ok),
    all: row.all + 1,
    miss: ok || row.miss ? row.miss : `${wanted} | ${given}`.slice(0, 160),
  })
}
for (const [skill, { right: n, all, miss }] of right) {
  console.log(`${skill.padEnd(34)} ${n}/${all}  ${((100 * n) / all).toFixed(1)} %`)
  if (process.argv.includes('--misses') && miss) console.log(`    ${miss.replaceAll('\n', ' ')}`)
}
await engine.close()
