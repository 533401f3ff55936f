// Computes prompts and writes their pages until it is killed; says so on stdout once some are written.
import { openNativeEngine } from '../../gpu-node/engine/native.ts'
import { collect, prompt } from './engines.ts'

const { CACHE_DIR: cacheDir = '', MODEL: modelDir = '' } = process.env
const engine = await openNativeEngine({ modelDir, tokenBytes: [], cacheDir, cacheBytes: 64 * 2 ** 20 })
let told = false
for (let i = 1; ; i++) {
  await collect(engine, { tokens: prompt(300, 90, i), maxTokens: 8 })
  if (told || engine.stats().diskWrites < 20) continue
  told = true
  process.stdout.write('writing\n')
}
