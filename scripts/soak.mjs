// `npm run soak -- --minutes 30`: the soak under the pinned Node.
import { runPinned, withSetup } from './setup.mjs'

withSetup(() => runPinned(['test/soak/soak.ts', ...process.argv.slice(2)]))
