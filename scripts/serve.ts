// What `npm start` runs once set-up is done: boot the stack, make the first account, say how to use it, keep it up, wait for Ctrl-C.
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { firstKey } from './first_account.ts'
import { keepUp, PAUSES } from './keep_up.ts'
import { bootStack, isOperators, ROOT, type Stack, StackError } from './stack.ts'

const say = (text: string): void => console.error(`sparrow: ${text}`)

/** An empty variable is one that is not set, as for the node. */
const port = (name: string, fallback: number): number => {
  const value = process.env[name] || String(fallback)
  if (!/^\d{1,5}$/.test(value) || Number(value) < 1 || Number(value) > 65_535) {
    throw new StackError(`${name}=${value} is no port; give a number from 1 to 65535.`)
  }
  return Number(value)
}

/** So many ends within ten minutes are outlived. */
const pauses = (): readonly number[] => {
  const text = process.env.SPARROW_RESTART_SECONDS
  if (!text) return PAUSES
  if (!/^\d+(\.\d+)?(,\d+(\.\d+)?)*$/.test(text)) {
    throw new StackError(`SPARROW_RESTART_SECONDS=${text} is no list of seconds, such as ${PAUSES}.`)
  }
  return text.split(',').map(Number)
}

const model = process.env.SPARROW_MODEL_NAME || 'sparrow-mini'

const banner = (stack: Stack, key: string): string => `
  Sparrow is ready.

  Base URL    ${stack.baseUrl}/v1
  API key     ${key}
  Dashboard   ${stack.baseUrl}/dashboard

  Try it:

  curl ${stack.baseUrl}/v1/chat/completions -H 'Authorization: Bearer ${key}' -H 'Content-Type: application/json' -d '{"model":"${model}","messages":[{"role":"user","content":"What is the capital of France?"}],"temperature":0}'

  Ctrl-C stops everything. Keys, balance and ledger stay.
`

const main = async (): Promise<void> => {
  if (process.argv.length > 2)
    throw new StackError('npm start takes no options. Settings are in the environment: SPARROW_PORT=8797 npm start')
  const stateDir = process.env.SPARROW_HOME || join(ROOT, '.sparrow')
  let stack: Stack | undefined
  let stopped = false
  const stop = async (code: number): Promise<void> => {
    if (stopped) return
    stopped = true
    if (stack) {
      say('stopping ...')
      await stack.stop()
    }
    process.exit(code)
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void stop(0))
  const tries = pauses()
  stack = await bootStack({
    stateDir,
    edgePort: port('SPARROW_PORT', 8787),
    nodePort: port('SPARROW_NODE_PORT', 8788),
    progress: (text) => say(`${text} ...`),
  })
  const key = await firstKey(stateDir, stack.baseUrl, stack.secrets, model)
  console.log(banner(stack, key))
  say(await keepUp(stack, { pauses: tries, say, isStopped: () => stopped, now: Date.now, pause: sleep }))
  await stop(1)
}

main().catch((error: unknown) => {
  if (!(error instanceof Error)) throw error
  const { message, stack = message } = error
  say(isOperators(error) ? message : stack)
  process.exit(1)
})
