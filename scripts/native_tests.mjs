// `npm run test:ops`: builds op_test, engine_test, cache_test and sampler_test beside the engine and runs op_test. `-- --build` only builds, and
// prints where they lie. Arguments after `--` go to op_test: an instruction set, an operation.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { BUILD, buildTargets, COMPONENTS } from './native_build.mjs'
import { buildNative, withSetup } from './setup.mjs'

withSetup(() => {
  buildNative()
  buildTargets(BUILD, ['op_test', 'engine_test', 'cache_test', 'sampler_test'], [])
  const rest = process.argv.slice(2)
  if (rest.includes('--build')) return console.log(BUILD)
  process.exit(spawnSync(join(BUILD, 'op_test'), [COMPONENTS, ...rest], { stdio: 'inherit' }).status ?? 1)
})
