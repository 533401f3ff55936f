// `npm run fuzz -- TARGET [--seconds N]`: one fuzz target of test/engine/fuzz under ASan and UBSan; libFuzzer where clang is
// installed, its stand-in driver.cc elsewhere. New inputs and crashes are kept below gpu-node/build/fuzz-found. `-- --build` only
// builds all targets with driver.cc, and prints where they lie.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { BUILD, buildTargets, SANITIZERS, sanitized } from './native_build.mjs'
import { buildNative, ROOT, SetupError, withSetup } from './setup.mjs'

const TARGETS = ['json', 'config', 'index', 'checkpoint']
const HERE = join(ROOT, 'test', 'engine', 'fuzz')
const SHARED_MEMORY = '/dev/shm'

const clang = () =>
  [process.env.CXX, 'clang++', 'clang++-19', 'clang++-16', 'clang++-14']
    .filter((name) => name?.includes('clang'))
    .find((name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0)

/** Builds the targets; their folder. */
const build = (targets, compiler) => {
  const folder = compiler ? join(BUILD, 'fuzz-clang') : BUILD
  const options = compiler
    ? [...sanitized(`fuzzer-no-link,${SANITIZERS.asan}`), `-DCMAKE_CXX_COMPILER=${compiler}`]
    : []
  if (!compiler) buildNative()
  buildTargets(
    folder,
    targets.map((target) => `fuzz_${target}`),
    options,
  )
  return folder
}

withSetup(() => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { seconds: { type: 'string', default: '60' }, build: { type: 'boolean', default: false } },
  })
  if (values.build) return console.log(build(TARGETS))
  const [target] = positionals
  if (!TARGETS.includes(target))
    throw new SetupError(`npm run fuzz -- TARGET [--seconds N]; TARGET is one of ${TARGETS.join(', ')}`)
  const program = join(build([target], clang()), `fuzz_${target}`)
  const found = join(BUILD, 'fuzz-found', target)
  mkdirSync(found, { recursive: true })
  const scratch = mkdtempSync(join(existsSync(SHARED_MEMORY) ? SHARED_MEMORY : tmpdir(), 'sparrow-fuzz-'))
  const bounds = ['-max_len=65536', '-timeout=60', '-malloc_limit_mb=256', '-rss_limit_mb=1024']
  const done = spawnSync(
    program,
    [`-max_total_time=${Number(values.seconds)}`, ...bounds, `-dict=${join(HERE, 'words.dict')}`].concat(
      `-artifact_prefix=${found}-`,
      [found, join(HERE, 'corpus', target)],
    ),
    { stdio: 'inherit', cwd: join(BUILD, 'fuzz-found'), env: { ...process.env, TMPDIR: scratch } },
  )
  rmSync(scratch, { recursive: true, force: true })
  process.exit(done.status ?? 1)
})
