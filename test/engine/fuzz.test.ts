// The fuzz corpus and some thousand seeded mutations of it, under ASan and UBSan with bounds on memory and time. Longer runs:
// `npm run fuzz`.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openNativeEngine } from '../../gpu-node/engine/native.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const CORPUS = join(ROOT, 'test', 'engine', 'fuzz', 'corpus')
const TARGETS = ['json', 'config', 'index', 'checkpoint']
const RUNS: Readonly<Record<string, number>> = { json: 10_000, config: 1000, index: 500, checkpoint: 1000 }

let programs = ''
let scratch = ''
beforeAll(() => {
  const args = [join(ROOT, 'scripts', 'fuzz.mjs'), '--build']
  const built = spawnSync(process.execPath, args, { encoding: 'utf8' })
  expect(built.status, built.stderr).toBe(0)
  programs = built.stdout.trim()
  scratch = mkdtempSync(join(tmpdir(), 'sparrow-fuzz-'))
}, 300_000)
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

test.each(TARGETS)('%s: the corpus and its mutations end in a value or in an error', (target) => {
  const words = join(CORPUS, '..', 'words.dict')
  const args = [`-runs=${RUNS[target]}`, '-seed=1', `-dict=${words}`, join(CORPUS, target)]
  const done = spawnSync(join(programs, `fuzz_${target}`), args, {
    encoding: 'utf8',
    cwd: scratch,
    env: { ...process.env, TMPDIR: scratch },
  })
  expect(done.status, done.stderr).toBe(0)
  const files = readdirSync(join(CORPUS, target)).length
  expect(done.stderr).toContain(`${files} files replayed, ${RUNS[target]} mutations`)
})

const open = (modelDir: string) =>
  openNativeEngine({ modelDir, tokenBytes: [], isa: 'scalar' }).then((engine) => engine.close())

test('the sound seed is sound, and each damaged one is refused by its own check', async () => {
  const use = async (config: string, checkpoint: string): Promise<void> => {
    copyFileSync(join(CORPUS, 'config', config), join(scratch, 'config.json'))
    copyFileSync(join(CORPUS, 'checkpoint', checkpoint), join(scratch, 'model.safetensors'))
    await open(scratch)
  }
  const refused = (config: string, checkpoint: string, message: RegExp) =>
    expect(use(config, checkpoint), `${config} ${checkpoint}`).rejects.toThrow(message)
  await use('tiny.json', 'tiny.safetensors')
  await use('nested.json', 'tiny.safetensors')
  await refused(
    'terabytes.json',
    'tiny.safetensors',
    /embed_tokens.weight: has shape \[4,8\], expected \[4194304,1048576\]/,
  )
  await refused('yarn_base_of_one.json', 'tiny.safetensors', /rope_theta/)
  await refused('tiny.json', 'fp8_nan', /holds an FP8 NaN/)
  await refused('tiny.json', 'int8_lowest', /holds -128/)
  await refused('tiny.json', 'bias_nan', /e_score_correction_bias: element 0 is not finite/)
  await refused('tiny.json', 'overlap', /overlaps/)
  await refused('tiny.json', 'shape_that_wraps', /larger than the file/)
  await refused('tiny.json', 'offset_past_the_end', /outside the file/)
  await refused('tiny.json', 'length_that_lies', /header length .* exceeds the file/)
})
