// `npm run bench:engine`: test/bench/engine.ts under the pinned Node.
import { runPinned, withSetup } from './setup.mjs'

withSetup(() => runPinned([`test/bench/${process.argv[2]}.ts`, ...process.argv.slice(3)]))
