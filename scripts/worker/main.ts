// node scripts/worker/main.ts --state DIR --port N: the Worker as `npm start` runs it, until a signal or its process ends.
// What `dev.env` in the folder names is bound to it, over the variables of `wrangler.toml`.
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, parseEnv } from 'node:util'
import { remember } from '../leftovers.ts'
import { socketOfDatabase } from './config.ts'
import { hasBooks, migrate } from './migrate.ts'
import { prepare } from './prepare.ts'
import { type RunOptions, runCron, runWorker, withStores } from './run.ts'

/** As wrangler.toml has it. */
const CRON_SECONDS = 600
const MIGRATIONS = fileURLToPath(new URL('../../schema/migrations', import.meta.url))

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      state: { type: 'string', default: '.sparrow' },
      port: { type: 'string', default: '8787' },
      'cron-seconds': { type: 'string', default: String(CRON_SECONDS) },
      'inspector-port': { type: 'string' },
    },
  })
  const state = resolve(values.state)
  const secrets = parseEnv(readFileSync(join(state, 'dev.env'), 'utf8'))
  const folder = { dir: join(state, 'worker'), persistDir: join(state, 'd1'), address: `127.0.0.1:${values.port}` }
  const prepared = await prepare(folder, Object.keys(secrets))
  process.chdir(prepared.dir)
  const inspector = values['inspector-port']
  const options: RunOptions = {
    env: { ...process.env, ...secrets },
    // It leads their group where `npm start` started it, and may be killed before them.
    onStart: (pid) => remember(state, pid, process.pid),
  }
  const books = hasBooks(state)
  const fault = await withStores(prepared, options, () => migrate(socketOfDatabase('DB'), MIGRATIONS, books)).then(
    () => undefined,
    (error: Error) => error.message,
  )
  if (fault !== undefined) {
    console.error(`${folder.persistDir}: ${fault}`)
    return 1
  }
  const worker = runWorker(prepared, {
    ...options,
    ...(inspector === undefined ? {} : { inspectorPort: Number(inspector) }),
  })
  console.log(`worker: started at ${folder.address}`)
  const timer = setInterval(async () => console.log(`cron: ${await runCron()}`), 1000 * Number(values['cron-seconds']))
  const signalled = new Promise<undefined>((done) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => done(undefined))
  })
  const end = await Promise.race([worker.ended, signalled])
  clearInterval(timer)
  if (end !== undefined) console.error(end)
  await worker.stop(end === undefined ? 'SIGTERM' : 'SIGKILL')
  return end === undefined ? 0 : 1
}

process.exit(await main())
