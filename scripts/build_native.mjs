// `npm run build:native`: packages and the native engine, without starting anything.
import { withSetup } from './setup.mjs'

withSetup(() => {})
