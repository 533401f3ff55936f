// One process a folder, also across containers; and a lock whose holder was killed holds nobody up.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lockFolder } from '../../gpu-node/folder_lock.ts'
import { lockState } from '../../gpu-node/identity.ts'
import { bootStack } from '../../scripts/stack.ts'
import { freePort } from '../e2e/stack.ts'
import { tempDir } from './fixture.ts'

const LOCK = fileURLToPath(new URL('../../gpu-node/folder_lock.ts', import.meta.url))
const HOLDER = `import { lockFolder } from ${JSON.stringify(LOCK)}
console.log(lockFolder(process.argv[1]) ? 'held' : 'refused')
setInterval(() => {}, 1000)`

let dir: ReturnType<typeof tempDir>
let children: ChildProcess[]
beforeEach(() => {
  dir = tempDir()
  children = []
})
afterEach(() => {
  for (const child of children) child.kill('SIGKILL')
  dir.remove()
})

/** Another process, behind `wrapper`, that takes the lock and keeps it. */
const other = (...wrapper: string[]) => {
  const [command = '', ...args] = [...wrapper, process.execPath, '--input-type=module', '-e', HOLDER, dir.path]
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  const said = new Promise<string>((done) => child.stdout.once('data', (part: Buffer) => done(String(part).trim())))
  return { said, child, ended: new Promise((done) => child.once('exit', done)) }
}

test('the lock is one file, and an empty one: a full disk has room for it', () => {
  const lock = lockFolder(dir.path)
  expect(readdirSync(dir.path).map((name) => [name, statSync(join(dir.path, name)).size])).toEqual([['lock', 0]])
  lock?.release()
})

test('of two processes one gets the folder; a holder that is killed leaves it free', async () => {
  const holder = other()
  expect(await holder.said).toBe('held')
  expect(lockFolder(dir.path)).toBeUndefined()
  expect(await other().said).toBe('refused')
  holder.child.kill('SIGKILL')
  await holder.ended
  const mine = lockFolder(dir.path)
  expect(mine).toBeDefined()
  expect(lockFolder(dir.path)).toBeUndefined()
  mine?.release()
  expect(await other().said).toBe('held')
})

const UNSHARE = ['unshare', '--fork', '--kill-child', '--pid', '--net', '--mount-proc']
const canUnshare = spawnSync('unshare', [...UNSHARE.slice(1), 'true']).status === 0

test.runIf(canUnshare)(
  'a process of another container, whose number and sockets mean nothing here, counts',
  async () => {
    const holder = other(...UNSHARE)
    expect(await holder.said).toBe('held')
    await expect(lockState(dir.path)).rejects.toThrow(/Another node is running/)
    const ports = { edgePort: await freePort(), nodePort: await freePort() }
    await expect(bootStack({ stateDir: dir.path, ...ports })).rejects.toThrow(/runs on .* already/)
    holder.child.kill('SIGKILL')
    await holder.ended
    // The kernel ends the other container's processes behind its first.
    await expect.poll(() => lockFolder(dir.path)).toBeDefined()
  },
)
