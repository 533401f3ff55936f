// npm run quantize, then the engine on what it wrote: every backend against the reference backend on the same codes.
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FORMATS } from '../../gpu-node/quantize/formats.ts'
import { answers, compare } from '../bench/quality.ts'
import { runnableIsas, withEngine } from './engines.ts'
import { distance, GOLDENS, MODEL_DIR, readGolden } from './golden.ts'
import { editTensors, entryOf, type Header } from './tensor_file.ts'

const CLI = join(import.meta.dirname, '../../gpu-node/quantize/main.ts')
// Two on which no index score of any format stands so near the k-th that a backend may rightly choose another key.
const NAMES = ['v3_yarn_no_dense', 'v32_interleaved_tied']
const scratch = mkdtempSync(join(tmpdir(), 'sparrow-quantize-'))
let isas: string[] = []
beforeAll(async () => {
  isas = await runnableIsas(join(GOLDENS, 'v32_groups_yarn'))
})
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

const cli = (...args: string[]) => spawnSync(process.execPath, [CLI, ...args], { encoding: 'utf8' })

const made = (name: string, format: string): string => {
  const to = join(scratch, `${name}-${format}`)
  execFileSync(process.execPath, [CLI, '--from', join(GOLDENS, name), '--to', to, '--format', format], {
    stdio: 'pipe',
  })
  return to
}

describe.each(NAMES)('%s', (name) => {
  const ids = Int32Array.from(readGolden(name).get('ids')?.data ?? [])
  const logits = (modelDir: string, isa: string, chunk = 1000) =>
    withEngine({ modelDir, isa }, (engine) => engine.evaluate(ids, chunk, false).logits)

  test.each(FORMATS)('%s', async (format) => {
    const dir = made(name, format)
    const wanted = await logits(dir, 'reference')
    for (const isa of isas) expect(distance(await logits(dir, isa), wanted), isa).toBeLessThan(1e-4)
    // Whatever `auto` is here: one long prefill, or token by token, are the same bits.
    expect(await logits(dir, 'auto', 1)).toEqual(await logits(dir, 'auto'))
    expect(await logits(dir, 'auto', 2)).toEqual(await logits(dir, 'auto', 33))
  })
})

// Random checkpoints say nothing of quality: one choice that flips changes all that follows. The embedded model does.
test.each([
  ['int8', 0.01, 0.97],
  ['fp8', 0.05, 0.93],
  ['int4', 0.5, 0.75],
] as const)('%s leaves the embedded model what it is', async (format, divergence, agreement) => {
  const to = join(scratch, `embedded-${format}`)
  execFileSync(process.execPath, [CLI, '--from', MODEL_DIR, '--to', to, '--format', format], { stdio: 'pipe' })
  const { kl, top1 } = compare(await answers(MODEL_DIR), await answers(to))
  expect(kl).toBeLessThan(divergence)
  expect(top1).toBeGreaterThan(agreement)
})

test('a broken-off run goes on where it stopped', () => {
  const to = made('v32_groups_yarn', 'int8')
  const [shard] = readdirSync(to).filter((name) => name.endsWith('.safetensors'))
  const path = join(to, shard as string)
  const [bytes, { mtimeMs }] = [readFileSync(path), statSync(path)]
  rmSync(join(to, 'model.safetensors.index.json'))
  made('v32_groups_yarn', 'int8')
  expect(statSync(path).mtimeMs).toBe(mtimeMs)
  rmSync(path)
  made('v32_groups_yarn', 'int8')
  expect(readFileSync(path).equals(bytes)).toBe(true)
})

test('a run that may write nothing, as on a full disk, leaves what is finished, and the next one goes on with it', () => {
  const [from, to] = [join(scratch, 'described'), join(scratch, 'described-int8')]
  cpSync(join(GOLDENS, 'v32_groups_yarn'), from, { recursive: true })
  const described = ['generation_config.json', 'model.safetensors.index.json']
  writeFileSync(join(from, 'generation_config.json'), '{}')
  const args = ['--from', from, '--to', to, '--format', 'int8']
  expect(cli(...args).status).toBe(0)
  const finished = described.map((name) => readFileSync(join(to, name), 'utf8'))
  const full = spawnSync('sh', ['-c', 'ulimit -f 0; exec "$@"', 'sh', process.execPath, CLI, ...args])
  expect(full.status).not.toBe(0)
  expect(described.map((name) => readFileSync(join(to, name), 'utf8'))).toEqual(finished)
  const { status, stderr } = cli(...args)
  expect(status, stderr).toBe(0)
})

test('weights that changed are not mixed with what was made from the old ones', () => {
  const [from, to] = [join(scratch, 'tuned'), join(scratch, 'tuned-int8')]
  cpSync(join(GOLDENS, 'v32_groups_yarn'), from, { recursive: true })
  writeFileSync(join(from, 'chat_template.jinja'), '{{ messages }}')
  const args = ['--from', from, '--to', to, '--format', 'int8']
  expect(cli(...args).status).toBe(0)
  expect(readFileSync(join(to, 'chat_template.jinja'), 'utf8')).toBe('{{ messages }}')
  expect(cli(...args).status).toBe(0)
  const [name] = readdirSync(from).filter((file) => file.endsWith('.safetensors'))
  const weights = join(from, name as string)
  const bytes = readFileSync(weights)
  bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1
  writeFileSync(weights, bytes)
  const again = cli(...args)
  expect([again.status, again.stderr]).toEqual([2, expect.stringContaining('was made from other weights')])
})

test('what cannot be done is refused in one line', () => {
  const from = join(GOLDENS, 'v32_groups_yarn')
  const refused: [string[], RegExp][] = [
    [[], /usage: npm run quantize/],
    [['--from', from, '--to', scratch, '--format', 'int3'], /usage/],
    [['--from', scratch, '--to', join(scratch, 'x'), '--format', 'int4'], /holds no config\.json/],
    [
      ['--from', join(GOLDENS, 'v32_fp8_sharded'), '--to', join(scratch, 'y'), '--format', 'int4'],
      /is quantized already/,
    ],
    [['--from', from, '--to', made('v32_groups_yarn', 'fp8'), '--format', 'int4'], /holds another model or format/],
  ]
  for (const [args, line] of refused) {
    const { status, stderr } = cli(...args)
    expect(status, stderr).toBe(2)
    expect(stderr).toMatch(line)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  }
})

describe('a damaged checkpoint is refused before anything is written, in one line that names the file', () => {
  const BODY = 'model.layers.0.self_attn.o_proj.weight'
  const body = (change: (entry: Header[string]) => void) => (from: string) =>
    editTensors(join(from, 'model.safetensors'), (header) => {
      change(entryOf(header, BODY))
      return undefined
    })
  const text = (name: string, content: string) => (from: string) => writeFileSync(join(from, name), content)
  const index = (weightMap: unknown) => text('model.safetensors.index.json', JSON.stringify({ weight_map: weightMap }))

  test.each<[string, (from: string) => void, RegExp]>([
    ['fewer bytes than the shape needs', body((e) => (e.shape[0] = 2 * (e.shape[0] ?? 0))), /o_proj.*stored, shape/],
    ['a dtype of another width', body((e) => (e.dtype = 'F32')), /o_proj.*stored, shape/],
    ['a dtype that nobody knows', body((e) => (e.dtype = 'F4')), /o_proj.*unknown dtype 'F4'/],
    ['offsets in the wrong order', body((e) => e.data_offsets.reverse()), /o_proj.*stored, shape/],
    ['data inside its neighbour', body((e) => (e.data_offsets = e.data_offsets.map((n) => n + 1))), /overlaps/],
    ['data beyond the file', body((e) => (e.data_offsets = e.data_offsets.map((n) => n + 1e9))), /o_proj.*truncated/],
    ['an entry without a dtype', body((e) => Reflect.deleteProperty(e, 'dtype')), /o_proj.*dtype/],
    ['a header that is no JSON', text('model.safetensors', '\u0002\0\0\0\0\0\0\0{]'), /model\.safetensors: is no JSON/],
    ['a header cut short', text('model.safetensors', '\u0009\0\0\0\0\0\0\0{}'), /ends inside its header/],
    ['a config that is no JSON', text('config.json', '{\n'), /config\.json: is no JSON/],
    ['a config that is no object', text('config.json', '[]'), /config\.json: Invalid/],
    ['an index without a map', index(undefined), /index\.json: weight_map/],
    ['an index that names what is not there', index({ x: 'model.safetensors' }), /names x, which none/],
  ])('%s', (name, damage, line) => {
    const [from, to] = [join(scratch, `damaged ${name}`), join(scratch, `from damaged ${name}`)]
    cpSync(join(GOLDENS, 'v32_groups_yarn'), from, { recursive: true })
    damage(from)
    const { status, stderr } = cli('--from', from, '--to', to, '--format', 'int8')
    expect(status, stderr).toBe(2)
    expect(stderr).toMatch(line)
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(existsSync(to)).toBe(false)
  })
})
