// npm run bench:peer -- [--shape mid|tiny|wide] [--depths 0,4096,16384,32768] [--batch 16] [--pairs 2] [--threads N] [--prefill 512] [--decode 64]
//   [--peer-seconds 900] [--no-answers] [--json FILE]
// Sparrow and llama.cpp on the same weights in one run, in turn: ours, llama.cpp, ours, llama.cpp.
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type MachineLimits, openNativeEngine } from '../../gpu-node/engine/native.ts'
import { numbers } from './engine.ts'
import { describeMachine } from './machine.ts'
import { startPeer } from './peer/client.ts'
import { installPeer, makeShape } from './peer/install.ts'
import { BATCH_PROMPT, compareAnswers, measureBatch, measureDepths } from './peer/measure.ts'
import { comparePairs } from './peer/pairs.ts'
import { reportLines } from './peer/report.ts'
import type { PeerResult } from './peer/result.ts'
import { isShape, SHAPES } from './peer/shapes.ts'
import { ceilings, roofline } from './roofline.ts'
import { median } from './statistics.ts'

const USAGE = `usage: npm run bench:peer -- [--shape ${Object.keys(SHAPES).join('|')}] [--depths 0,4096,16384,32768] [--batch 16] [--pairs 2] [--threads N] [--prefill 512] [--decode 64] [--peer-seconds 900] [--no-answers] [--json FILE]`
/** Below and above the number of keys a query keeps: dense and sparse attention. */
const ANSWER_TOKENS = [40, 600]
const FOLDER = join(import.meta.dirname, '..', '..', '.sparrow', 'peer')

export const readPeerOptions = (args: readonly string[]) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      shape: { type: 'string', default: 'mid' },
      depths: { type: 'string', default: '0,4096,16384,32768' },
      batch: { type: 'string', default: '16' },
      pairs: { type: 'string', default: '2' },
      threads: { type: 'string', default: String(cpus().length) },
      prefill: { type: 'string', default: '512' },
      decode: { type: 'string', default: '64' },
      'peer-seconds': { type: 'string', default: '900' },
      'no-answers': { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  })
  if (!isShape(values.shape)) throw new Error(`--shape: ${values.shape} is none of ${Object.keys(SHAPES).join(', ')}`)
  const one = (name: 'pairs' | 'threads' | 'prefill' | 'decode' | 'peer-seconds') =>
    numbers(name, values[name], 1)[0] as number
  return {
    shape: values.shape,
    depths: values.depths === '' ? [] : numbers('depths', values.depths, 0),
    batch: values.batch === '' ? [] : numbers('batch', values.batch, 1),
    pairs: one('pairs'),
    threads: one('threads'),
    prefill: one('prefill'),
    decode: one('decode'),
    peerSeconds: one('peer-seconds'),
    answers: values['no-answers'] ? [] : ANSWER_TOKENS,
    json: values.json,
  }
}
type Options = ReturnType<typeof readPeerOptions>

/** The median of each. */
const middle = (all: readonly MachineLimits[]): MachineLimits => ({
  readBytes: median(all.map((l) => l.readBytes)),
  bf16Flops: median(all.map((l) => l.bf16Flops)),
})

export const runPeerBench = async (o: Options): Promise<PeerResult> => {
  const machine = describeMachine()
  const installation = installPeer(FOLDER)
  const model = makeShape(FOLDER, o.shape)
  const engine = await openNativeEngine({
    modelDir: model.hf,
    tokenBytes: [],
    kvPages: 1,
    threads: o.threads,
    isa: 'auto',
  })
  const context = Math.max(...o.depths, ...o.answers, 0) + Math.max(o.prefill, o.decode) + 64
  const peer = await startPeer(installation, model, o.threads, context)
  try {
    const answers = []
    for (const count of o.answers) answers.push(await compareAnswers(engine, peer, count))
    engine.bench({ depth: 0, prefill: 64, decode: 4, repeats: 1, batch: 0, threads: 0, dense: false }) // the peer has been warmed up as well
    const depths = await measureDepths(engine, peer, o)
    const batches = []
    for (const sequences of o.batch) batches.push({ sequences, ...(await measureBatch(engine, peer, sequences, o)) })
    const roof = roofline(model.hf)
    const allowed = (limits: readonly MachineLimits[]) => ceilings(roof, middle(limits))
    return {
      kind: 'bench:peer',
      machine,
      threads: o.threads,
      limits: [...depths, ...batches].flatMap((each) => each.limits),
      shape: o.shape,
      parameters: engine.info.parameters,
      ours: `Sparrow (${engine.info.isa})`,
      peer: installation.name,
      prefillTokens: o.prefill,
      decodeTokens: o.decode,
      pairs: o.pairs,
      depths: depths.map(({ limits, ...each }) => ({
        ...each,
        prefill: comparePairs(o.prefill, each.prefill, allowed(limits).prefill(each.depth + o.prefill / 2)),
        decode: comparePairs(o.decode, each.decode, allowed(limits).decode(each.depth + o.decode / 2, 1)),
      })),
      batches: batches.map(({ sequences, turns, limits }) => ({
        sequences,
        prompt: BATCH_PROMPT,
        decode: comparePairs(
          o.decode * sequences,
          turns,
          allowed(limits).decode(BATCH_PROMPT + o.decode / 2, sequences),
        ),
      })),
      answers,
    }
  } finally {
    await peer.close()
    await engine.close()
  }
}

if (process.argv[1] === import.meta.filename) {
  try {
    const options = readPeerOptions(process.argv.slice(2))
    const result = await runPeerBench(options)
    for (const line of reportLines(result)) console.log(line)
    if (options.json) writeFileSync(resolve(options.json), `${JSON.stringify(result, null, 1)}\n`)
  } catch (error) {
    console.error(`bench:peer: ${error instanceof Error ? error.message : String(error)}\n${USAGE}`)
    process.exitCode = 2
  }
}
