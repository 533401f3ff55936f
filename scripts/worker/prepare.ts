// Writes what workerd needs into a folder: the Worker's bundle, the stand-ins of D1 and R2, its configuration and that of the stores alone.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse } from 'smol-toml'
import { z } from 'zod'
import { STORE_MODULES, storesConfig, WORKER_MODULE, type WorkerSettings, workerConfig } from './config.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const CONFIG = join(ROOT, 'wrangler.toml')

/** Miniflare's own Workers, which `wrangler dev` runs too; they are files of its package, not of its interface. */
const STAND_INS = join(dirname(createRequire(import.meta.url).resolve('miniflare')), 'workers')
const STAND_IN_FILES = {
  d1: 'd1/database.worker.js',
  r2: 'r2/bucket.worker.js',
  entry: 'shared/object-entry.worker.js',
  shared: 'shared/index.worker.js',
  zod: 'shared/zod.worker.js',
} as const satisfies Record<keyof typeof STORE_MODULES, string>

/** What a local Worker needs of `wrangler.toml`. Wrangler's own reader would keep all of wrangler, 200 MB, in a process that stays. */
const wranglerToml = z.object({
  name: z.string(),
  compatibility_date: z.string(),
  compatibility_flags: z.array(z.string()),
  vars: z.record(z.string(), z.unknown()),
  d1_databases: z.array(z.object({ binding: z.string(), database_id: z.string() })),
  r2_buckets: z.array(z.object({ binding: z.string(), bucket_name: z.string() })),
  durable_objects: z.object({ bindings: z.array(z.object({ name: z.string(), class_name: z.string() })) }),
  triggers: z.object({ crons: z.tuple([z.string()]) }),
})

/** `secrets`: names of what the environment has in place of variables there, or beside them. */
const settingsOf = (secrets: readonly string[]): WorkerSettings => {
  const read = wranglerToml.parse(parse(readFileSync(CONFIG, 'utf8')))
  return {
    ...{ name: read.name, secrets, vars: read.vars, cron: read.triggers.crons[0] },
    compatibilityDate: read.compatibility_date,
    compatibilityFlags: read.compatibility_flags,
    databases: new Map(read.d1_databases.map((one) => [one.binding, one.database_id])),
    buckets: new Map(read.r2_buckets.map((one) => [one.binding, one.bucket_name])),
    objects: new Map(read.durable_objects.bindings.map((one) => [one.name, one.class_name])),
  }
}

/** Of everything that the bundle is made from. */
const digestOfSources = (): string => {
  const hash = createHash('sha256')
  const below = (folder: string) =>
    readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)))
      // Made while bundling.
      .filter((file) => !file.startsWith(join('edge', 'dashboard', 'dist')))
      .sort()
  const files = [
    ...below('edge'),
    ...below('schema'),
    'scripts/build_dashboard.ts',
    'wrangler.toml',
    'package-lock.json',
  ]
  for (const file of files)
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(ROOT, file)))
      .update('\0')
  return hash.digest('hex')
}

/** Made once for all that is started from this checkout. */
const BUNDLES = join(ROOT, '.wrangler', 'bundle')

const MAKING_MS = 600_000
const wasLeft = (path: string): boolean =>
  (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0) < Date.now() - MAKING_MS

/** As it is deployed. Returns the file. */
const bundle = async (): Promise<string> => {
  const file = join(BUNDLES, `${digestOfSources()}.js`)
  if (existsSync(file)) return file
  mkdirSync(BUNDLES, { recursive: true })
  const out = mkdtempSync(join(BUNDLES, 'making-'))
  const args = ['deploy', '--dry-run', '--outdir', out, '--config', CONFIG]
  const child = spawn(join(ROOT, 'node_modules', '.bin', 'wrangler'), args, {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => (said += part))
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`wrangler could not bundle the Worker: ${said}`)
  for (const name of readdirSync(BUNDLES)) {
    const older = join(BUNDLES, name)
    // A folder may be another start's, at work; of one that was killed it stays behind.
    if (older !== file && (name.endsWith('.js') || wasLeft(older))) rmSync(older, { recursive: true, force: true })
  }
  const made = join(out, 'index.js')
  // What is in it reaches the disk before its name does.
  writeFileSync(made, readFileSync(made), { flush: true })
  renameSync(made, file)
  rmSync(out, { recursive: true })
  return file
}

export interface WorkerFolder {
  /** For everything that is written here, and where the processes run. */
  readonly dir: string
  /** Databases, objects and bucket, laid out as by `wrangler dev --persist-to`. */
  readonly persistDir: string
  /** Host and port. */
  readonly address: string
}

export interface Prepared {
  readonly dir: string
  /** Bindings, in the order of `wrangler.toml`. */
  readonly databases: readonly string[]
}

/** All but the Worker's own module. */
export const writeConfigs = (settings: WorkerSettings, { dir, persistDir, address }: WorkerFolder): Prepared => {
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  // Sockets of an earlier start would be in the way.
  for (const name of readdirSync(dir)) if (name.endsWith('.sock')) rmSync(join(dir, name))
  const files = join(persistDir, 'v3')
  for (const kind of ['d1', 'r2', 'do']) mkdirSync(join(files, kind), { recursive: true })
  for (const [name, file] of Object.entries(STAND_IN_FILES))
    copyFileSync(join(STAND_INS, file), join(dir, STORE_MODULES[name as keyof typeof STORE_MODULES]))
  writeFileSync(join(dir, 'stores.capnp'), storesConfig(settings, files))
  writeFileSync(join(dir, 'worker.capnp'), workerConfig(settings, files, address))
  return { dir, databases: [...settings.databases.keys()] }
}

/** `secrets`: names of variables of the environment that are bound too. */
export const prepare = async (folder: WorkerFolder, secrets: readonly string[]): Promise<Prepared> => {
  const prepared = writeConfigs(settingsOf(secrets), folder)
  copyFileSync(await bundle(), join(folder.dir, WORKER_MODULE))
  return prepared
}
