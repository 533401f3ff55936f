// Peak memory of a process that prefills one prompt in pieces of 2,048 tokens, then one four times as long: prints both, bytes.
// node test/engine/index_memory.ts ISA
import { readFileSync } from 'node:fs'
import { openNativeEngine } from '../../gpu-node/engine/native.ts'
import { withContext } from '../bench/engine.ts'
import { prompt } from './engines.ts'
import { MODEL_DIR } from './golden.ts'

const PIECE = 2048
const TIMES = 4

const peakBytes = (): number => 1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1])

const modelDir = withContext(MODEL_DIR, (TIMES + 1) * PIECE)
const engine = await openNativeEngine({ modelDir, tokenBytes: [], isa: process.argv[2] ?? 'auto', threads: 2 })
const { vocabSize, pageBytes } = engine.info
engine.nextLogits(prompt(PIECE, vocabSize, 1), PIECE)
const short = peakBytes()
engine.nextLogits(prompt(TIMES * PIECE, vocabSize, 2), PIECE)
const long = peakBytes()
await engine.close()
const tokens = TIMES * PIECE
console.log(JSON.stringify({ short, long, kvBytes: (tokens * pageBytes) / 64, wholeScores: 4 * PIECE * tokens }))
