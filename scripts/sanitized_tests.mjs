// `npm run test:asan`, test:ubsan, test:tsan: op_test, engine_test and cache_test under a sanitizer, in a build of their own. Any finding
// ends the program and the run. Arguments after `--` go to op_test: an instruction set, an operation.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BUILD, buildTargets, CHECKPOINTS, COMPONENTS, SANITIZERS, sanitized } from './native_build.mjs'
import { say, withSetup } from './setup.mjs'

// No detect_stack_use_after_return: GCC 12 lays vectors of 64 bytes misaligned on the stack that it makes (its bug 110027).
const OPTIONS = {
  ASAN_OPTIONS: 'strict_string_checks=1:check_initialization_order=1',
  UBSAN_OPTIONS: 'print_stacktrace=1',
  TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1',
}

withSetup(() => {
  const [name, ...rest] = process.argv.slice(2)
  const folder = join(BUILD, name)
  buildTargets(folder, ['op_test', 'engine_test', 'cache_test', 'sampler_test'], sanitized(SANITIZERS[name]))
  const scratch = mkdtempSync(join(tmpdir(), 'sparrow-cache-'))
  const failed = [
    ['op_test', COMPONENTS, ...rest],
    ...CHECKPOINTS.map((checkpoint) => ['engine_test', checkpoint]),
    ['cache_test', scratch],
    ['sampler_test'],
  ].filter(([program, ...args]) => {
    say(`${program} under ${SANITIZERS[name]}`)
    return (
      spawnSync(join(folder, program), args, { stdio: 'inherit', env: { ...process.env, ...OPTIONS } }).status !== 0
    )
  })
  rmSync(scratch, { recursive: true })
  process.exit(failed.length ? 1 : 0)
})
