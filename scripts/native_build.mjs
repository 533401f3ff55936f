// Programs built from the engine's sources beside the addon: native tests and fuzz targets, with or without sanitizers.
import { join } from 'node:path'
import { checkCompiler, discardForeignBuild, ROOT, run } from './setup.mjs'

export const NATIVE = join(ROOT, 'gpu-node', 'native')
export const BUILD = join(ROOT, 'gpu-node', 'build')
export const COMPONENTS = join(ROOT, 'test', 'engine', 'goldens', 'components')
export const CHECKPOINTS = ['v32_groups_yarn', 'v32_mtp_copies'].map((name) =>
  join(ROOT, 'test', 'engine', 'goldens', name),
)

/** `-fsanitize=` of each build; its folder below gpu-node/build has the same name. */
export const SANITIZERS = { asan: 'address,undefined', ubsan: 'undefined', tsan: 'thread' }

/** CMake options of a build under `sanitizers`; the first finding ends the program. */
export const sanitized = (sanitizers) => [
  `-DCMAKE_CXX_FLAGS=-O1 -g1 -fno-omit-frame-pointer -fsanitize=${sanitizers} -fno-sanitize-recover=all`,
]

/** Builds `targets` in `folder`; objects of the engine that are there already are used. */
export const buildTargets = (folder, targets, options) => {
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
