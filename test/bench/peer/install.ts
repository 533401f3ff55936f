// Brings the peer into a scratch folder: npm's prebuilt llama.cpp, headers from that package's git bundle, the driver
// compiled against both, and one model for each shape.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SHAPES, type ShapeName } from './shapes.ts'

export const PEER_VERSION = '3.22.1'
const PACKAGES = { 'node-llama-cpp': PEER_VERSION, '@node-llama-cpp/linux-x64': PEER_VERSION }
const DRIVER = join(import.meta.dirname, 'driver.cc')
const MAKER = join(import.meta.dirname, 'make_model.py')

export interface Installation {
  /** Folder of llama.cpp's shared libraries. */
  readonly libraries: string
  readonly driver: string
  /** What is measured, in words. */
  readonly name: string
}

const run = (command: string, args: readonly string[], cwd: string, failure: string): void => {
  const done = spawnSync(command, args, { cwd, stdio: ['ignore', 2, 2] })
  if (done.status !== 0) throw new Error(failure)
}

const installPackages = (folder: string): void => {
  const wanted = JSON.stringify({ private: true, dependencies: PACKAGES })
  const manifest = join(folder, 'package.json')
  const stamp = join(folder, '.installed')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return
  console.error(`bench:peer: installing node-llama-cpp ${PEER_VERSION} ...`)
  writeFileSync(manifest, wanted)
  // Its own install script would look for a GPU, and its optional packages are half a gigabyte of builds for other machines.
  const flags = ['--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund', '--loglevel=error']
  run('npm', ['install', ...flags], folder, 'npm could not install node-llama-cpp (its output is above)')
  writeFileSync(stamp, wanted)
}

const checkOutHeaders = (folder: string): string => {
  const source = join(folder, 'src')
  if (existsSync(join(source, 'include', 'llama.h'))) return source
  const bundle = join(folder, 'node_modules', 'node-llama-cpp', 'llama', 'gitRelease.bundle')
  const failure = "git could not read the headers from the package's bundle (its output is above)"
  run('git', ['init', '--quiet', source], folder, failure)
  run('git', ['-C', source, 'fetch', '--quiet', bundle, 'HEAD'], folder, failure)
  run('git', ['-C', source, 'checkout', '--quiet', 'FETCH_HEAD', '--', 'include', 'ggml/include'], folder, failure)
  return source
}

const only = (folder: string, pattern: RegExp): string => {
  const found = readdirSync(folder).find((name) => pattern.test(name))
  if (!found) throw new Error(`${folder}: holds nothing like ${pattern.source}`)
  return found
}

/** The peer in `folder`; what is there already is kept. */
export const installPeer = (folder: string): Installation => {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new Error('the peer runs on Linux on x86-64 only')
  mkdirSync(folder, { recursive: true })
  installPackages(folder)
  const source = checkOutHeaders(folder)
  const libraries = join(folder, 'node_modules', '@node-llama-cpp', 'linux-x64', 'bins', 'linux-x64')
  const library = only(libraries, /^libllama\.v.*\.so$/)
  const names = [library, only(libraries, /^libggml\.v.*\.so$/), only(libraries, /^libggml-base\.so$/)]
  const driver = join(folder, 'driver')
  const headers = ['include', join('ggml', 'include')].flatMap((dir) => ['-isystem', join(source, dir)])
  const link = ['-L', libraries, ...names.map((name) => `-l:${name}`), `-Wl,-rpath,${libraries}`]
  run(
    process.env.CXX ?? 'g++',
    ['-std=c++20', '-O2', DRIVER, ...headers, ...link, '-o', driver],
    folder,
    'the driver did not compile (output above)',
  )
  return { libraries, driver, name: `llama.cpp (node-llama-cpp ${PEER_VERSION}, ${library})` }
}

export interface PeerModel {
  readonly hf: string
  readonly gguf: string
}

export const hasNumpy = (): boolean => spawnSync('python3', ['-c', 'import numpy'], { stdio: 'ignore' }).status === 0

/** The model of `make_model.py` with these arguments, in `folder`; made anew when script or arguments changed. */
export const makeModel = (folder: string, args: readonly string[]): PeerModel => {
  const model = { hf: join(folder, 'hf'), gguf: join(folder, 'peer.gguf') }
  const stamp = join(folder, '.made')
  const now = createHash('sha256').update(readFileSync(MAKER)).update(args.join(' ')).digest('hex')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === now) return model
  if (!hasNumpy()) throw new Error('python3 with numpy makes the model. On Debian: apt-get install python3-numpy')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  run('python3', [MAKER, folder, ...args], folder, 'make_model.py failed (its output is above)')
  writeFileSync(stamp, now)
  return model
}

export const makeShape = (folder: string, shape: ShapeName): PeerModel => {
  console.error(`bench:peer: the ${shape} model ...`)
  return makeModel(join(folder, 'models', shape), SHAPES[shape])
}
