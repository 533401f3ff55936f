// Set-up that needs nothing but a plain Node 20: packages, compiler, native engine. Plain JavaScript on purpose, since it
// runs before anything is installed. Each step is skipped when its inputs have not changed.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))
const BIN = join(ROOT, 'node_modules', '.bin')
const ADDON = join(ROOT, 'gpu-node', 'build', 'sparrow.node')

/** A failure the user can mend: printed as one line, without a stack. */
export class SetupError extends Error {}

export const say = (text) => console.error(`sparrow: ${text}`)

/** Environment in which the pinned Node (npm package `node`) comes first. */
export const pinnedEnv = () => ({ ...process.env, PATH: `${BIN}${delimiter}${process.env.PATH ?? ''}` })

export const run = (command, args, failure) => {
  const done = spawnSync(command, args, { cwd: ROOT, env: pinnedEnv(), stdio: ['ignore', 2, 2] })
  if (done.status !== 0) throw new SetupError(failure)
}

/** By names within the checkout, so that one that was moved or copied is not set up again. */
const digest = (files) => {
  const hash = createHash('sha256')
  for (const file of files) hash.update(relative(ROOT, file)).update('\0').update(readFileSync(file)).update('\0')
  return hash.digest('hex')
}

const filesBelow = (dir, wanted) =>
  readdirSync(dir, { recursive: true })
    .map((name) => join(dir, name))
    .filter((path) => wanted.test(path) && statSync(path).isFile())
    .sort()

/** Runs `step` unless the stamp says it ran on the same inputs before. */
const once = (stamp, inputs, output, step) => {
  const now = digest(inputs)
  if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, 'utf8') === now) return
  step()
  mkdirSync(dirname(stamp), { recursive: true })
  writeFileSync(stamp, now)
}

const checkNode = () => {
  const major = Number(process.versions.node.split('.')[0])
  if (major < 20) throw new SetupError(`Node ${process.versions.node} is too old. Install Node 20 or newer.`)
}

/** Throws where `npm ci`, which empties the folder first, would empty another checkout's. */
export const checkOwnFolder = (modules) => {
  if (lstatSync(modules, { throwIfNoEntry: false })?.isSymbolicLink())
    throw new SetupError(
      `${modules} is a link, and what it leads to is not what this checkout needs. Remove the link, try again.`,
    )
}

const installPackages = () => {
  const inputs = [join(ROOT, 'package.json'), join(ROOT, 'package-lock.json')]
  once(join(ROOT, 'node_modules', '.sparrow-installed'), inputs, join(BIN, 'node'), () => {
    checkOwnFolder(join(ROOT, 'node_modules'))
    say('installing packages (about half a minute) ...')
    run(
      process.platform === 'win32' ? 'npm.cmd' : 'npm',
      ['ci', '--no-audit', '--no-fund', '--loglevel=error'],
      'npm ci failed (its output is above). Check the network and the npm registry setting, then try again.',
    )
  })
  const version = spawnSync(join(BIN, 'node'), ['--version'], { encoding: 'utf8' })
  if (version.status !== 0) {
    throw new SetupError(
      'The pinned Node did not install. Delete node_modules, allow install scripts of `node`, try again.',
    )
  }
}

const PACKAGE_OF = { cmake: 'cmake', make: 'make', 'g++': 'g++' }

export const checkCompiler = () => {
  for (const [tool, name] of Object.entries(PACKAGE_OF)) {
    const compiler = tool === 'g++' ? (process.env.CXX ?? tool) : tool
    if (spawnSync(compiler, ['--version'], { stdio: 'ignore' }).status !== 0) {
      throw new SetupError(`${compiler} is missing; the native engine needs it. On Debian: apt-get install ${name}`)
    }
  }
}

/** CMake refuses a cache made for another folder, as when the checkout was moved or copied. */
export const discardForeignBuild = (build, native) => {
  const cache = join(build, 'CMakeCache.txt')
  if (!existsSync(cache) || readFileSync(cache, 'utf8').includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${native}\n`)) return
  rmSync(build, { recursive: true })
}

/** Builds gpu-node/build/sparrow.node with CMake when a source, header or the pinned Node changed. */
export const buildNative = () => {
  const native = join(ROOT, 'gpu-node', 'native')
  const inputs = [...filesBelow(native, /\.(cc|h|cu|cuh|txt|cmake)$/), join(ROOT, 'package-lock.json')]
  once(join(ROOT, 'gpu-node', 'build', '.sparrow-built'), inputs, ADDON, () => {
    checkCompiler()
    say('building the native engine (a minute or two) ...')
    const modules = join(ROOT, 'node_modules')
    discardForeignBuild(join(ROOT, 'gpu-node', 'build'), native)
    const configure = [
      ['-S', native, '-B', join(ROOT, 'gpu-node', 'build'), '-DCMAKE_BUILD_TYPE=Release'],
      [`-DNODE_API_HEADERS_DIR=${join(modules, 'node-api-headers', 'include')}`],
      [`-DNODE_ADDON_API_DIR=${join(modules, 'node-addon-api')}`],
    ].flat()
    run('cmake', configure, 'cmake could not configure the native engine (its output is above).')
    run(
      'cmake',
      ['--build', join(ROOT, 'gpu-node', 'build'), '--parallel', '2'],
      'The native engine did not compile (output above). It needs a C++20 compiler: g++ 12 or newer.',
    )
  })
}

export const setup = () => {
  checkNode()
  installPackages()
  buildNative()
}

/** Runs the pinned Node on `args`, hands signals on, and exits with its code. */
export const runPinned = (args, environment = {}) => {
  const child = spawn(join(BIN, 'node'), args, {
    cwd: ROOT,
    env: { ...pinnedEnv(), ...environment },
    stdio: 'inherit',
  })
  // A Ctrl-C reaches the child through the terminal; a signal sent to this process alone must be passed on.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('exit', (code, signal) => process.exit(code ?? (signal ? 1 : 0)))
}

/** `main` of every entry script: set-up failures become one line. */
export const withSetup = (then) => {
  try {
    setup()
    then()
  } catch (error) {
    if (!(error instanceof SetupError)) throw error
    say(error.message)
    process.exit(1)
  }
}
