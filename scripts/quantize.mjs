// `npm run quantize -- --from DIR --to DIR --format int4`: gpu-node/quantize/ under the pinned Node.
import { runPinned, withSetup } from './setup.mjs'

withSetup(() => runPinned(['gpu-node/quantize/main.ts', ...process.argv.slice(2)]))
