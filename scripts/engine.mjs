// `npm run engine -- COMMAND ...`: gpu-node/cli/ under the pinned Node.
import { runPinned, withSetup } from './setup.mjs'

withSetup(() => runPinned(['gpu-node/cli/main.ts', ...process.argv.slice(2)]))
