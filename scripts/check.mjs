// `npm run check`: types, lint and format of TypeScript and C++. `npm run format` mends what can be mended.
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { pinnedEnv, ROOT, withSetup } from './setup.mjs'

const write = process.argv.includes('--write')
const bin = (name) => join(ROOT, 'node_modules', '.bin', name)
const cxxFolders = [
  join('gpu-node', 'native'),
  join('test', 'engine', 'native'),
  join('test', 'engine', 'fuzz'),
  join('test', 'bench'),
].map((folder) => join(ROOT, folder))

const cxxFiles = () =>
  cxxFolders.flatMap((folder) =>
    readdirSync(folder, { recursive: true })
      .filter((name) => /\.(cc|h|cu|cuh)$/.test(name))
      .map((name) => join(folder, name)),
  )

const steps = () => [
  ['types', bin('tsc'), ['-p', 'tsconfig.json']],
  ['types of the edge', bin('tsc'), ['-p', 'edge/tsconfig.json']],
  ['types of the dashboard', bin('tsc'), ['-p', 'edge/dashboard/app/tsconfig.json']],
  ['lint and format', bin('biome'), ['check', '--error-on-warnings', ...(write ? ['--write'] : [])]],
  ['format of C++', bin('clang-format'), [...(write ? ['-i'] : ['--dry-run', '-Werror']), ...cxxFiles()]],
]

/** Resolves to whether it went well, with all it said in one piece. */
const runStep = ([name, command, args]) =>
  new Promise((resolve) => {
    const child = spawn(command, args, { cwd: ROOT, env: pinnedEnv(), stdio: ['ignore', 'pipe', 'pipe'] })
    const said = []
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => said.push(part))
    child.on('error', (error) => said.push(Buffer.from(`${error.message}\n`)))
    child.on('close', (code) => {
      process.stderr.write(Buffer.concat(said))
      console.error(`check: ${name}: ${code === 0 ? 'ok' : 'FAILED'}`)
      resolve(code === 0)
    })
  })

withSetup(async () => {
  const waiting = steps()
  let failed = 0
  const work = async () => {
    for (let step = waiting.shift(); step; step = waiting.shift()) if (!(await runStep(step))) failed++
  }
  // Two at once, but what writes alone.
  await Promise.all(Array.from({ length: write ? 1 : 2 }, work))
  process.exit(failed ? 1 : 0)
})
