// `npm test [-- vitest arguments]`: set-up, then every test.
import { runPinned, withSetup } from './setup.mjs'

withSetup(() => runPinned(['node_modules/vitest/vitest.mjs', 'run', ...process.argv.slice(2)]))
