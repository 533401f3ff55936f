// `npm start`: set-up, then the whole stack (scripts/serve.ts) under the pinned Node.
import { runPinned, withSetup } from './setup.mjs'

withSetup(() => runPinned(['scripts/serve.ts', ...process.argv.slice(2)]))
