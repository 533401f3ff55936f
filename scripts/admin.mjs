// `npm run admin -- <command>`: the admin command line (scripts/admin.ts) under the pinned Node.
import { runPinned, withSetup } from './setup.mjs'

withSetup(() => runPinned(['scripts/admin.ts', ...process.argv.slice(2)]))
