// Every e2e test file: `fetch` gives up an idle connection before the server does (workerd: after five seconds), also where this
// thread is held up meanwhile. What is sent on one that the server just closed fails without an answer.
import { Agent, setGlobalDispatcher } from 'undici'

setGlobalDispatcher(new Agent({ keepAliveTimeout: 1_000, keepAliveMaxTimeout: 1_000 }))
