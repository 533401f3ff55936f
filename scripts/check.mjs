// `npm run check`: types, lint and format of TypeScript and C++. `npm run format` mends what can be mended.
import { spawnSync } from 'node:child_process'
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

withSetup(() => {
  let failed = 0
  for (const [name, command, args] of steps()) {
    const done = spawnSync(command, args, { cwd: ROOT, env: pinnedEnv(), stdio: 'inherit' })
    console.error(`check: ${name}: ${done.status === 0 ? 'ok' : 'FAILED'}`)
    if (done.status !== 0) failed++
  }
  process.exit(failed ? 1 : 0)
})
