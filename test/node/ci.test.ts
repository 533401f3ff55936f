// What CI runs, with stand-ins for what it calls.
import { execFileSync } from 'node:child_process'
import { chmodSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { ROOT } from '../../scripts/stack.ts'
import { tempDir } from './fixture.ts'

test('CI fetches a Chromium where there is none, while it checks, before it tests', () => {
  const dir = tempDir()
  onTestFinished(dir.remove)
  const calls = join(dir.path, 'calls')
  for (const tool of ['bash', 'dirname', 'timeout']) symlinkSync(`/usr/bin/${tool}`, join(dir.path, tool))
  const says = { id: 'echo 0', 'apt-get': `echo "apt-get $1" >>"${calls}"`, npm: `echo "npm $*" >>"${calls}"` }
  for (const [name, script] of Object.entries(says)) {
    writeFileSync(join(dir.path, name), `#!/bin/bash\n${script}\n`)
    chmodSync(join(dir.path, name), 0o755)
  }
  execFileSync(join(ROOT, '.ci', 'run'), { env: { PATH: dir.path } })
  const said = readFileSync(calls, 'utf8').trim().split('\n')
  expect(said.slice(0, 2).sort()).toEqual(['apt-get install', 'npm run check'])
  expect(said[2]).toBe('npm test')
})
