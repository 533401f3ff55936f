// What `npm start` puts around the Worker: workerd reads the configuration as it is meant, whatever is in it, and D1, R2, objects and cron
// work in one process.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { socketOfDatabase, WORKER_MODULE, type WorkerSettings } from '../../scripts/worker/config.ts'
import { hasBooks, migrate } from '../../scripts/worker/migrate.ts'
import { type Prepared, writeConfigs } from '../../scripts/worker/prepare.ts'
import { type RunningWorker, runCron, runWorker, withStores } from '../../scripts/worker/run.ts'
import { callSocket } from '../../scripts/worker/socket.ts'
import { eventually, freePort } from '../e2e/stack.ts'

const ODD = 'quotes " and \', back\\slash, $HOME, new\nline, tab\t, bell\u0007, ünïcode 漢 🐦'
const SECRET = 'never-in-a-file'
const SCRIPT = `
import { DurableObject } from 'cloudflare:workers'
export class Counter extends DurableObject {
  add() {
    this.ctx.storage.sql.exec('CREATE TABLE IF NOT EXISTS rows (n)')
    this.ctx.storage.sql.exec('INSERT INTO rows VALUES (1)')
    return this.ctx.storage.sql.exec('SELECT count(*) AS n FROM rows').one().n
  }
}
const counter = (env) => env.COUNTER.get(env.COUNTER.idFromName('one'))
export default {
  async fetch(request, env) {
    const { ODD, NESTED, TOKEN } = env
    await env.BUCKET.put('a/b', 'kept', { customMetadata: { m: ODD } })
    const got = await env.BUCKET.get('a/b')
    await env.DB.batch([env.DB.prepare('CREATE TABLE IF NOT EXISTS t (x)'), env.DB.prepare('INSERT INTO t VALUES (?)').bind(ODD)])
    const { results } = await env.DB.prepare('SELECT x FROM t').all()
    const object = { kept: await got.text(), meta: got.customMetadata.m }
    return Response.json({ ODD, NESTED, TOKEN, results, object, count: await counter(env).add(), ip: request.cf.clientIp })
  },
  async scheduled({ cron }, env) {
    if (cron !== '*/10 * * * *') throw new Error('another cron')
    await counter(env).add()
  },
}`

const settings: WorkerSettings = {
  ...{ name: 'odd', compatibilityDate: '2026-08-01', compatibilityFlags: ['nodejs_compat'], cron: '*/10 * * * *' },
  vars: { ODD, NESTED: { list: [ODD, 1, null] }, TOKEN: 'of wrangler.toml' },
  secrets: ['TOKEN'],
  databases: new Map([['DB', 'some "id"']]),
  buckets: new Map([['BUCKET', 'some-bucket']]),
  objects: new Map([['COUNTER', 'Counter']]),
}

const home = mkdtempSync(join(tmpdir(), 'sparrow workerd "\'-'))
const before = process.cwd()
let prepared: Prepared
let running: RunningWorker
let url: string

const start = async (): Promise<void> => {
  const address = `127.0.0.1:${await freePort()}`
  prepared = writeConfigs(settings, { dir: join(home, 'worker'), persistDir: join(home, 'files'), address })
  writeFileSync(join(prepared.dir, WORKER_MODULE), SCRIPT)
  running = runWorker(prepared, { env: { ...process.env, TOKEN: SECRET } })
  url = `http://${address}`
  await eventually(async () => (await fetch(url, { method: 'HEAD' }).catch(() => undefined)) && true, 60_000)
}

beforeAll(start)
afterAll(async () => {
  process.chdir(before)
  await running?.stop('SIGKILL')
  rmSync(home, { recursive: true, force: true })
})

const ask = async () => (await (await fetch(url)).json()) as { count: number; results: object[] }

test('every text arrives as it is, a variable of the environment over one of the file', async () => {
  expect(await ask()).toMatchObject({
    ODD,
    NESTED: { list: [ODD, 1, null] },
    TOKEN: SECRET,
    object: { kept: 'kept', meta: ODD },
    results: expect.arrayContaining([{ x: ODD }]),
    ip: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
  })
})

test('no secret is written down, and nobody else reads the folder', () => {
  const files = readdirSync(prepared.dir).filter((name) => !name.endsWith('.sock'))
  expect(files.length).toBeGreaterThan(5)
  for (const name of files) expect(readFileSync(join(prepared.dir, name), 'utf8')).not.toContain(SECRET)
  expect(statSync(prepared.dir).mode & 0o077).toBe(0)
})

test('the scheduled handler runs, and says so', async () => {
  const { count } = await ask()
  process.chdir(prepared.dir)
  expect(await runCron()).toBe('ok')
  expect((await ask()).count).toBe(count + 2)
})

test('migrations: each once, in order, whole or not at all', async () => {
  const folder = join(home, 'migrations')
  mkdirSync(folder)
  const write = (name: string, sql: string) => writeFileSync(join(folder, name), sql)
  write('0001.sql', 'CREATE TABLE m (x);--> statement-breakpoint\nINSERT INTO m VALUES (1);\n')
  write('0000.sql', '-- nothing but a comment\nCREATE TABLE first (x);\n')
  const dir = join(home, 'migrated')
  const stores = writeConfigs(settings, { dir, persistDir: join(home, 'migrated-files'), address: '127.0.0.1:1' })
  process.chdir(dir)
  const socket = socketOfDatabase('DB')
  const apply = () => withStores(stores, { env: process.env }, () => migrate(socket, folder))
  expect(await apply()).toEqual(['0000.sql', '0001.sql'])
  expect(await apply()).toEqual([])
  write('0002.sql', 'INSERT INTO m VALUES (2);--> statement-breakpoint\nINSERT INTO nowhere VALUES (1);')
  await expect(apply()).rejects.toThrow(/0002\.sql could not be applied: .*no such table: nowhere/)
  write('0002.sql', 'CREATE TABLE seen AS SELECT count(*) AS n FROM m;')
  expect(await apply()).toEqual(['0002.sql'])
  const body = JSON.stringify([{ sql: 'SELECT n FROM seen' }, { sql: 'SELECT name FROM d1_migrations' }])
  const read = () => callSocket(socket, '/query?resultsFormat=ARRAY_OF_OBJECTS', body)
  expect(JSON.parse(await withStores(stores, { env: process.env }, read))).toMatchObject([
    { results: [{ n: 1 }] },
    { results: [{ name: '0000.sql' }, { name: '0001.sql' }, { name: '0002.sql' }] },
  ])
})

test('books that lost their D1 get no empty one, and a damaged one is told as that', async () => {
  const state = join(home, 'books')
  const folder = join(home, 'one migration')
  mkdirSync(folder)
  writeFileSync(join(folder, '0000.sql'), 'CREATE TABLE first (x);')
  const dir = join(state, 'worker')
  const stores = writeConfigs(settings, { dir, persistDir: join(state, 'd1'), address: '127.0.0.1:1' })
  process.chdir(dir)
  const apply = () =>
    withStores(stores, { env: process.env }, () => migrate(socketOfDatabase('DB'), folder, hasBooks(state)))
  expect(await apply()).toEqual(['0000.sql'])
  const d1 = join(state, 'd1', 'v3', 'd1', 'miniflare-D1DatabaseObject')
  const lose = () => rmSync(d1, { recursive: true })
  lose()
  // A first start that broke off.
  expect(await apply()).toEqual(['0000.sql'])
  const object = join(state, 'd1', 'v3', 'do', 'odd-Counter')
  mkdirSync(object)
  writeFileSync(join(object, 'metadata.sqlite'), '')
  expect(hasBooks(state)).toBe(false)
  writeFileSync(join(object, `${'0a'.repeat(32)}.sqlite`), '')
  expect(await apply()).toEqual([])
  lose()
  // Also when it is tried again.
  for (const _ of [1, 2]) await expect(apply()).rejects.toThrow('its file is lost')
  rmSync(object, { recursive: true })
  writeFileSync(join(state, 'api_key'), 'sk-...')
  await expect(apply()).rejects.toThrow('its file is lost')
  for (const name of readdirSync(d1).filter((one) => /^[0-9a-f]{64}/.test(one)))
    writeFileSync(join(d1, name), 'no database'.repeat(1000))
  await expect(apply()).rejects.toThrow('D1 cannot be used: Internal Server Error')
})

test('killed and started again, it has all it knew, and does not stumble over the sockets of before', async () => {
  const { count, results } = await ask()
  await running.stop('SIGKILL')
  await start()
  const after = await ask()
  expect(after.count).toBeGreaterThan(count)
  expect(after.results.length).toBeGreaterThan(results.length)
})

test('stores that do not start are named, not the socket that they would have made', async () => {
  const dir = join(home, 'broken')
  const broken = writeConfigs(settings, { dir, persistDir: join(home, 'files'), address: '127.0.0.1:1' })
  writeFileSync(join(dir, 'stores.capnp'), 'not a configuration')
  const asked = withStores(broken, { env: process.env }, () => callSocket(join(dir, socketOfDatabase('DB'))))
  await expect(asked).rejects.toThrow('workerd stores.capnp ended (1)')
})

test('while the stores are worked on they are the only process, and they end with the work', async () => {
  const [dir, pids] = [join(home, 'alone'), [] as number[]]
  const stores = writeConfigs(settings, { dir, persistDir: join(home, 'alone-files'), address: '127.0.0.1:1' })
  const options = { env: process.env, onStart: (pid: number) => void pids.push(pid) }
  const failing = withStores(stores, options, () => Promise.reject(new Error('the work failed')))
  await expect(failing).rejects.toThrow('the work failed')
  expect(pids).toHaveLength(1)
  for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow(/ESRCH/)
})

test('nothing that the Worker asks its stores crosses a connection, which either end may close at any time', () => {
  expect(readFileSync(join(prepared.dir, 'worker.capnp'), 'utf8')).not.toMatch(/external =/)
})

test('the end of the process is told', async () => {
  let told = ''
  void running.ended.then((what) => {
    told = what
  })
  await running.stop('SIGTERM')
  await expect.poll(() => told).toMatch(/^workerd worker\.capnp ended/)
})
