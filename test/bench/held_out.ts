// Sparse against dense attention, same weights, on held-out conversations of the embedded model:
// node test/bench/held_out.ts [--json]
// Greedy replies are judged by one forward pass: whole when the likeliest token is the expected one at every place.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { loadTokenizer } from '../../gpu-node/tokenizer.ts'
import { withEngine } from '../engine/engines.ts'
import { MODEL_DIR } from '../engine/golden.ts'
import { optionsOf } from './options.ts'
import { argmax, logSoftmax } from './quality.ts'

const caseSchema = z.object({ skill: z.string(), prompt: z.string(), reply: z.string() })

interface Case {
  readonly skill: string
  readonly ids: Int32Array
  readonly prompt: number
}

interface Judged {
  readonly whole: boolean
  /** Negative log likelihood of the reply, nats, and its tokens. */
  readonly loss: number
  readonly tokens: number
  /** The likeliest token at every position. */
  readonly best: readonly number[]
}

export interface HeldOutRow {
  readonly skill: string
  readonly cases: number
  /** Mean length in tokens. */
  readonly length: number
  /** Share of replies that are wholly right. */
  readonly sparse: number
  readonly dense: number
  /** Mean loss of a reply's token, nats. */
  readonly sparseLoss: number
  readonly denseLoss: number
  /** Share of positions beyond index_topk where both have the same likeliest token. */
  readonly agreement: number
}

const readCases = async (): Promise<Case[]> => {
  const tokenizer = await loadTokenizer(MODEL_DIR)
  const all = z.array(caseSchema).parse(JSON.parse(readFileSync(join(import.meta.dirname, 'held_out.json'), 'utf8')))
  return Promise.all(
    all.map(async ({ skill, prompt, reply }) => {
      const [first, second] = [(await tokenizer.encode(prompt)).ids, (await tokenizer.encode(reply)).ids]
      return { skill, ids: Int32Array.from([...first, ...second]), prompt: first.length }
    }),
  )
}

const judge = (cases: readonly Case[], dense: boolean): Promise<Judged[]> =>
  withEngine({ modelDir: MODEL_DIR, dense }, (engine) => {
    const vocab = engine.info.vocabSize
    return cases.map(({ ids, prompt }) => {
      const { logits } = engine.evaluate(ids.subarray(0, -1), 512, false)
      const best: number[] = []
      let loss = 0
      for (let t = 0; t < ids.length - 1; t++) {
        const p = logSoftmax(logits.subarray(t * vocab, (t + 1) * vocab))
        best.push(argmax(p))
        if (t >= prompt - 1) loss -= p[ids[t + 1] as number] as number
      }
      const whole = best.slice(prompt - 1).every((id, i) => id === ids[prompt + i])
      return { whole, loss, tokens: ids.length - prompt, best }
    })
  })

const mean = (values: readonly number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length

export const compareHeldOut = async (): Promise<HeldOutRow[]> => {
  const cases = await readCases()
  const { index_topk: topK } = z
    .object({ index_topk: z.number() })
    .parse(JSON.parse(readFileSync(join(MODEL_DIR, 'config.json'), 'utf8')))
  const [sparse, dense] = [await judge(cases, false), await judge(cases, true)]
  return [...new Set(cases.map(({ skill }) => skill))].map((skill) => {
    const at = cases.flatMap((each, i) => (each.skill === skill ? [i] : []))
    const lossOf = (judged: readonly Judged[]) =>
      at.reduce((sum, i) => sum + (judged[i] as Judged).loss, 0) /
      at.reduce((sum, i) => sum + (judged[i] as Judged).tokens, 0)
    const beyond = at.flatMap((i) =>
      (sparse[i] as Judged).best.slice(topK).map((id, t) => (id === dense[i]?.best[topK + t] ? 1 : 0)),
    )
    return {
      skill,
      cases: at.length,
      length: mean(at.map((i) => (cases[i] as Case).ids.length)),
      sparse: mean(at.map((i) => Number(sparse[i]?.whole))),
      dense: mean(at.map((i) => Number(dense[i]?.whole))),
      sparseLoss: lossOf(sparse),
      denseLoss: lossOf(dense),
      agreement: beyond.length ? mean(beyond) : 1,
    }
  })
}

if (process.argv[1] === import.meta.filename) {
  const { json } = optionsOf('held-out', { json: { type: 'boolean' } })
  const rows = await compareHeldOut()
  if (json) console.log(JSON.stringify(rows))
  else {
    const percent = (share: number): string => `${(100 * share).toFixed(1)}%`
    for (const r of rows) {
      console.log(
        `${r.skill.padEnd(36)} ${String(r.cases).padStart(3)} of ${r.length.toFixed(0).padStart(4)} tokens  whole ${percent(r.sparse)} sparse, ${percent(r.dense)} dense  loss ${r.sparseLoss.toFixed(4)}, ${r.denseLoss.toFixed(4)}  same likeliest ${percent(r.agreement)}`,
      )
    }
  }
}
