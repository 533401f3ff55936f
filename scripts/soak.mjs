// `npm run soak -- --minutes 30`: the soak under the pinned Node; `npm run soak:control -- --minutes 10`: what it is read against.
import { runPinned, withSetup } from './setup.mjs'

const args = process.argv.slice(2)
const isControl = args[0] === '--control'
withSetup(() => runPinned([`test/soak/${isControl ? 'control' : 'soak'}.ts`, ...args.slice(isControl ? 1 : 0)]))
