// What an operator mistypes, loses or kills: one line that says what to do.
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
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
const ended = (child: ReturnType<typeof idle>) => new Promise((done) => child.once('exit', done))

test.runIf(process.platform === 'linux')(
  'what a killed stack left running is ended, what another one runs is not',
  async () => {
    const file = join(dir.path, 'processes')
    const [left, kept, other] = [idle(), idle(), idle()]
    const gone = ended(left)
    for (const { pid = 0 } of [left, kept, other]) remember(dir.path, pid)
    const [first, second, third] = readFileSync(file, 'utf8').trim().split('\n')
    const changed = (line: string | undefined, by: object) => JSON.stringify({ ...JSON.parse(line ?? ''), ...by })
    // The first one's stack is gone; so is the third's, and its number is another process's now.
    const lines = [changed(first, { stackIs: 'gone' }), second, changed(third, { stackIs: 'gone', pidIs: 'gone' })]
    writeFileSync(file, `${lines.join('\n')}\n{"torn`)
    try {
      expect(await endLeftovers(dir.path)).toBe(1)
      await gone
      expect([kept, other].map((child) => child.exitCode ?? child.signalCode)).toEqual([null, null])
      // What a running stack wrote down stays, should it be killed later.
      expect(readFileSync(file, 'utf8').trim()).toBe(second)
      expect(await endLeftovers(dir.path)).toBe(0)
    } finally {
      for (const child of [kept, other]) child.kill('SIGKILL')
    }
  },
)
