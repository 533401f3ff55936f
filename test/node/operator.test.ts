// What an operator mistypes, loses or kills: one line that says what to do.
import { spawn, spawnSync } from 'node:child_process'
import { appendFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { endLeftovers, remember } from '../../scripts/leftovers.ts'
import { loadSecrets } from '../../scripts/stack.ts'
import { tempDir } from './fixture.ts'

let dir: ReturnType<typeof tempDir>
beforeEach(() => {
  dir = tempDir()
})
afterEach(() => dir.remove())

const ADMIN = fileURLToPath(new URL('../../scripts/admin.ts', import.meta.url))
const admin = (...args: string[]) =>
  spawnSync(process.execPath, [ADMIN, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ADMIN_SECRET: 's'.repeat(40), SPARROW_URL: 'http://127.0.0.1:9', SPARROW_HOME: dir.path },
  })

test.each([
  [['--help'], /usage: npm run admin/],
  [['accounts', '--foo'], /--foo/],
  [['account', 'create', '--name', 'x', '--credit', '-5'], /--credit/],
  [['key', 'create', '--account', 'a', '--name', 'k', '--expires', '2027-02-31'], /--expires takes a date/],
  [['audit', '--journal', '/nowhere'], /holds no journal/],
  [['evidence', '--out', 'bill.jsonl'], /--out needs --account/],
])('admin %j is told what is wrong, without a stack', (args, line) => {
  const { status, stderr } = admin(...args)
  expect([status, stderr]).toEqual([1, expect.stringMatching(line)])
  expect(stderr).not.toMatch(/^ +at /m)
})

test('secrets that are lost are not made anew over books that stand', () => {
  const first = loadSecrets(join(dir.path, 'fresh'))
  expect(loadSecrets(join(dir.path, 'fresh'))).toEqual(first)
  mkdirSync(join(dir.path, 'd1'))
  expect(() => loadSecrets(dir.path)).toThrow(/dev\.env is gone.*Restore it/)
})

const idle = (...args: string[]) =>
  spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', ...args], { detached: true, stdio: 'ignore' })
const argsOf = (child: ReturnType<typeof idle>) => child.spawnargs.slice(1)
const ended = (child: ReturnType<typeof idle>) => new Promise((done) => child.once('exit', done))

test.runIf(process.platform === 'linux')(
  'what a killed stack left running is ended, what another one runs is not',
  async () => {
    const [left, kept, stack] = [idle('left'), idle('kept'), idle('serve.ts')]
    const gone = ended(left)
    const line = (by: number, child: typeof left) => JSON.stringify({ stack: by, pid: child.pid, args: argsOf(child) })
    appendFileSync(join(dir.path, 'processes'), `${line(2 ** 30, left)}\n${line(stack.pid ?? 0, kept)}\n{"torn`)
    try {
      expect(await endLeftovers(dir.path)).toBe(1)
      await gone
      expect(kept.exitCode ?? kept.signalCode).toBeNull()
      expect(await endLeftovers(dir.path)).toBe(0)
      // One that had another process's number since then.
      remember(dir.path, kept.pid ?? 0, ['something else'])
      expect(await endLeftovers(dir.path)).toBe(0)
    } finally {
      for (const child of [kept, stack]) child.kill('SIGKILL')
    }
  },
)
