// `npm run bench:engine`, `npm run bench:peer`: a script of test/bench under the pinned Node.
import { runPinned, withSetup } from './setup.mjs'

withSetup(() => runPinned([`test/bench/${process.argv[2]}.ts`, ...process.argv.slice(3)]))
