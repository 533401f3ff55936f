// `npm run test:ops`: builds op_test beside the engine and runs it. `-- --build` only builds, and prints where it lies.
// Arguments after `--` go to op_test: an instruction set, an operation.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { buildNative, checkCompiler, discardForeignBuild, ROOT, run, withSetup } from './setup.mjs'

const NATIVE = join(ROOT, 'gpu-node', 'native')
const BUILD = join(ROOT, 'gpu-node', 'build')
const COMPONENTS = join(ROOT, 'test', 'engine', 'goldens', 'components')

/** Builds `targets` in `folder`; objects of the engine that are there already are used. */
const build = (folder, targets, options) => {
  checkCompiler()
  discardForeignBuild(folder, NATIVE)
  run(
    'cmake',
    ['-S', NATIVE, '-B', folder, '-DSPARROW_TESTS=ON', ...options],
    'cmake could not configure the native tests.',
  )
  run(
    'cmake',
    ['--build', folder, '--parallel', '2', '--target', ...targets],
    'The native tests did not compile (output above).',
  )
}

withSetup(() => {
  buildNative()
  build(BUILD, ['op_test'], [])
  const program = join(BUILD, 'op_test')
  const rest = process.argv.slice(2)
  if (rest.includes('--build')) return console.log(program)
  process.exit(spawnSync(program, [COMPONENTS, ...rest], { stdio: 'inherit' }).status ?? 1)
})
