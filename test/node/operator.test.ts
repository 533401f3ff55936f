// What an operator mistypes, loses or kills: one line that says what to do.
import { execFile, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { print } from '../../scripts/admin_print.ts'
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
  [['key', 'create', '--account', 'a', '--name', 'k', '--expires', '2027-02-31T10:00Z'], /--expires takes a date/],
  [['key', 'create', '--account', 'a', '--name', 'k', '--expires', '2027-01-31T10:00'], /--expires takes a date/],
  [['audit', '--journal', '/nowhere'], /holds no journal/],
  [['evidence', '--out', 'bill.jsonl'], /--out needs --account/],
  [['price', 'withdraw', '--model', 'm', '--from', '2030-01-01T09:30'], /--from takes a date/],
  [['price', 'withdraw', '--model', 'm'], /--from is needed/],
  [['topup', '--account', 'a', '--usd', '10', '--usd', '100'], /^--usd is given twice/],
  [['price', 'set', '--model', 'm', '--hit', ' ', '--miss', '1', '--output', '1'], /^--hit takes a whole number/],
  [['account', 'create', '--name', 'x', '--budget', '50'], /^--budget is no option of this command/],
  [['audit', '--account', 'x'], /^--account is no option of this command/],
  [['topup', '--account', 'a', '--usd', '0'], /^--usd takes dollars, .* from 0\.000000001 to 1000000\.000000000\n$/],
  [['account', 'create', '--name', 'x', '--credit', '1000001'], /^--credit takes dollars, .* to 1000000\.000000000\n$/],
  [
    ['account', 'limits', '--account', 'x', '--budget', '99999999'],
    /^--budget takes dollars, .* from 0\.000000000 to /,
  ],
  ...['Rechnung für März', '請求書', ' 7', '', 'x'.repeat(201)].map((key): [string[], RegExp] => [
    ['topup', '--account', 'a', '--usd', '1', '--idempotency-key', key],
    /^--idempotency-key takes 1 to 200 ASCII characters, blanks only between others\n$/,
  ]),
])('admin %j is told what is wrong, without a stack', (args, line) => {
  const { status, stderr } = admin(...args)
  expect([status, stderr]).toEqual([1, expect.stringMatching(line)])
  expect(stderr).not.toMatch(/^ +at /m)
})

test('a setting that is empty is one that is not set', () => {
  const env = { ...process.env, ADMIN_SECRET: 's'.repeat(40), SPARROW_URL: '', SPARROW_PORT: '9', SPARROW_HOME: '' }
  const { stderr } = spawnSync(process.execPath, [ADMIN, 'accounts'], { encoding: 'utf8', env })
  expect(stderr).toContain('cannot be reached at http://127.0.0.1:9.')
})

test('npm start with an option, which would do nothing, says where settings are', () => {
  const serve = fileURLToPath(new URL('../../scripts/serve.ts', import.meta.url))
  const env = { ...process.env, SPARROW_HOME: join(dir.path, 'home'), SPARROW_PORT: 'none' }
  const { status, stderr } = spawnSync(process.execPath, [serve, '--port', '8797'], { encoding: 'utf8', env })
  expect([status, stderr]).toEqual([1, expect.stringMatching(/^sparrow: npm start takes no options\. [^\n]+\n$/)])
})

test('a disk that is full, or a folder named as the file, is told in one line', async () => {
  const server = createServer((_, response) => response.end(JSON.stringify({ data: [] })))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const env = { ...process.env, ADMIN_SECRET: 's'.repeat(40), SPARROW_URL: `http://127.0.0.1:${port}` }
  // By a link of its own: what replaced it would replace no device.
  const full = join(dir.path, 'full')
  symlinkSync('/dev/full', full)
  const told = (out: string): Promise<string> =>
    promisify(execFile)(process.execPath, [ADMIN, 'ledger', '--account', 'a', '--out', out], { env }).then(
      () => 'it went well',
      (error: { stderr: string }) => error.stderr,
    )
  expect([await told(full), await told(dir.path)]).toEqual([
    expect.stringMatching(/^ENOSPC: [^\n]+\n$/),
    expect.stringMatching(/^EISDIR: [^\n]+\n$/),
  ])
  server.close()
})

test('money has one column and one unit, however little it is; prices are as `price set` takes them', async () => {
  const data = [
    { id: 'small', amountNano: -980 },
    { id: 'large', amountNano: 25_000_000_000, hitNano: 28, outputNano: 2190 },
  ]
  const server = createServer((_, response) => response.end(JSON.stringify({ data })))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const env = { ...process.env, ADMIN_SECRET: 's'.repeat(40), SPARROW_URL: `http://127.0.0.1:${port}` }
  const { stdout } = await promisify(execFile)(process.execPath, [ADMIN, 'ledger', '--account', 'a'], { env })
  server.close()
  expect(stdout).toMatch(/^small +-0\.000000980/m)
  expect(stdout).toMatch(/^large +25\.000000000/m)
  expect(stdout).toMatch(/amountUsd.*hitNano.*outputNano/)
  expect(stdout).not.toMatch(/amountNano|hitUsd|outputUsd/)
})

test('usage is read on 120 columns: when, what, which tokens, how much; --json has every column', async () => {
  const row = {
    ...{ requestId: '01a22974-34fe-73ff-a944-db7f813c83a4', accountId: 'a'.repeat(16), keyId: `key_${'a'.repeat(16)}` },
    ...{ nodeId: 'node-1', epoch: 'e', seq: 3, attempt: 1, model: 'deepseek-v3.2-exp\u001b[2J', attempts: '[]' },
    ...{ hitTokens: 131_072, missTokens: 131_072, outputTokens: 65_536, hitNano: 28, missNano: 280, outputNano: 420 },
    ...{ chargedNano: 1_067_895_296, finish: 'tool_calls', signature: 's'.repeat(86), retryOf: null },
    settledAt: Date.parse('2030-01-01T09:30:00.500Z'),
  }
  const server = createServer((_, response) => response.end(JSON.stringify({ data: [row, { ...row, model: 'm' }] })))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const env = { ...process.env, ADMIN_SECRET: 's'.repeat(40), SPARROW_URL: `http://127.0.0.1:${port}` }
  const told = (...more: string[]) =>
    promisify(execFile)(process.execPath, [ADMIN, 'usage', '--account', 'a', ...more], { env })
  const { stdout, stderr } = await told()
  const lines = stdout.trimEnd().split('\n')
  expect(lines).toHaveLength(3)
  expect(lines[0]?.split(/ +/)).toEqual(
    ...[['settledAt', 'requestId', 'model', 'cached', 'uncached', 'output', 'chargedUsd']],
  )
  expect(lines[2]).toMatch(
    /^2030-01-01T09:30:00\.500Z {2}01a22974-[\w-]+ {2}m +131072 {4}131072 {3}65536 {2}1\.067895296$/,
  )
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(120 + '\\u{1b}[2J'.length)
  // What a node calls its model does not clear the operator's screen.
  expect(lines[1]).toContain('deepseek-v3.2-exp\\u{1b}[2J')
  expect(stderr).toBe('All columns: --json, or --out FILE.\n')
  expect(JSON.parse((await told('--json')).stdout)).toEqual({ data: [row, { ...row, model: 'm' }] })
  server.close()
})

/** What the command line shows of an answer. */
const shownOf = (answer: object, command: string): string => {
  const lines = vi.spyOn(console, 'log').mockImplementation(() => {})
  print(answer, false, command)
  const text = lines.mock.calls.flat().join('\n')
  lines.mockRestore()
  return text
}

test('columns stand under each other whatever letters a name is of', () => {
  const names = ['tokyo', '東京', 'de\u0301mo', '서울', '🚀']
  expect(shownOf({ data: names.map((name, i) => ({ name, keys: i })) }, 'accounts')).toBe(
    ['name   keys', 'tokyo     0', '東京      1', 'de\u0301mo      2', '서울      3', '🚀        4'].join('\n'),
  )
})

test('a name does not move the cursor outside of tables either', () => {
  expect(shownOf({ name: 'a\u001b[2J', expiresAt: null }, 'key rotate')).toBe('name: a\\u{1b}[2J\nexpiresAt: null')
})

test('times and limits are printed as options take them, and what is printed is taken back', async () => {
  const at = Date.parse('2030-01-01T09:30:00.5Z')
  const limits = { monthlyBudgetNano: 50_000_000_000, models: ['a', 'b'], affinityCredit: false }
  const row = { id: 'key_1', createdAt: at, expiresAt: null, limits }
  const asked: string[] = []
  const server = createServer((request, response) => {
    request.on('data', (part) => asked.push(String(part)))
    response.end(JSON.stringify(request.method === 'GET' ? { data: [row] } : { ...row, effectiveFrom: at }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const env = { ...process.env, ADMIN_SECRET: 's'.repeat(40), SPARROW_URL: `http://127.0.0.1:${port}` }
  const told = async (...args: string[]) =>
    (await promisify(execFile)(process.execPath, [ADMIN, ...args], { env })).stdout
  const withdraw = ['price', 'withdraw', '--model', 'm', '--from', '2030-01-01T09:30:00.500Z']
  for (const stdout of [await told('keys'), await told(...withdraw)]) {
    expect(stdout).toContain('2030-01-01T09:30:00.500Z')
    expect(stdout).toContain('monthlyBudgetUsd=50.000000000 models=a,b affinityCredit=false')
    expect(stdout).not.toContain(String(at))
  }
  expect(JSON.parse(asked[0] ?? '')).toEqual({ model: 'm', effectiveFrom: at })
  expect(JSON.parse(await told('keys', '--json'))).toEqual({ data: [row] })
  server.close()
})

test('evidence says up to when it looked, since what was settled in the last minute is left out', async () => {
  const server = createServer((_, response) => response.end('{"data":[]}'))
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  const env = { ...process.env, ADMIN_SECRET: 's'.repeat(40), SPARROW_URL: `http://127.0.0.1:${port}` }
  const { stdout } = await promisify(execFile)(process.execPath, [ADMIN, 'evidence'], { env })
  server.close()
  const until = /until: (\S+Z)$/m.exec(stdout)?.[1] ?? ''
  expect(Date.now() - Date.parse(until)).toBeGreaterThanOrEqual(60_000)
})

test('the command line asks where `npm start` listens in the same environment', async () => {
  const server = createServer((_, response) => response.end('{"data":[{"name":"acme"}]}'))
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { SPARROW_URL: _, ...rest } = process.env
  const SPARROW_PORT = String((server.address() as AddressInfo).port)
  const env = { ...rest, ADMIN_SECRET: 's'.repeat(40), SPARROW_PORT }
  const { stdout } = await promisify(execFile)(process.execPath, [ADMIN, 'accounts'], { env })
  server.close()
  expect(stdout).toContain('acme')
})

test('a change whose outcome is not known names the key with which to repeat it; a question, and what was never sent, name none', async () => {
  const keys: unknown[] = []
  const server = createServer((request, response) => {
    keys.push(request.headers['idempotency-key'])
    if (keys.length === 1) response.destroy()
    else response.writeHead(500).end('{"error":{"code":"internal_error","message":"Failed."}}')
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  let SPARROW_URL = `http://127.0.0.1:${port}`
  const told = (...args: string[]) =>
    new Promise<string>((done) => {
      const env = { ...process.env, ADMIN_SECRET: 's'.repeat(40), SPARROW_URL }
      execFile(process.execPath, [ADMIN, ...args], { env }, (_error, _stdout, stderr) => done(stderr))
    })
  const topUp = ['topup', '--account', 'acme', '--usd', '10']
  for (const i of [0, 1]) {
    const line = await told(...topUp)
    expect(line).toMatch(new RegExp(`--idempotency-key ${keys[i]}\\n$`))
  }
  expect(await told('accounts')).toBe('internal_error: Failed.\n')
  // Never sent.
  for (SPARROW_URL of ['edge.example', 'http://nowhere.invalid'])
    expect(await told(...topUp)).toMatch(
      new RegExp(`^The edge cannot be reached at ${SPARROW_URL}\\..*SPARROW_URL\\.\n$`),
    )
  server.close()
})

test('an answer of something that is no Worker is told in one line, and that the change may be done', async () => {
  const server = createServer((_, response) => response.end('<html>Welcome to nginx</html>'))
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  const env = { ...process.env, ADMIN_SECRET: 's'.repeat(40), SPARROW_URL: `http://127.0.0.1:${port}` }
  const told = (...args: string[]) =>
    new Promise<string>((done) => {
      execFile(process.execPath, [ADMIN, ...args], { env }, (_error, _stdout, stderr) => done(stderr))
    })
  expect(await told('accounts')).toMatch(/^internal_error: What answered is not the Worker\..*\n$/)
  expect(await told('key', 'revoke', '--id', 'key_x')).toMatch(/not the Worker.*\nIt may be done all the same/)
  server.close()
})

test('secrets that are lost are not made anew over books that stand', () => {
  const first = loadSecrets(join(dir.path, 'fresh'))
  expect(loadSecrets(join(dir.path, 'fresh'))).toEqual(first)
  mkdirSync(join(dir.path, 'd1'))
  expect(() => loadSecrets(dir.path)).toThrow(/dev\.env is gone.*Restore it/)
})

test('a disk that is full at the first start leaves no secrets without their text: once it has room a start makes them', () => {
  const file = join(dir.path, 'dev.env')
  const script = `import(${JSON.stringify(new URL('../../scripts/stack.ts', import.meta.url).href)})
    .then(({ loadSecrets }) => loadSecrets(${JSON.stringify(dir.path)}))
    .catch((error) => console.log(error.code))`
  // No file may have a byte.
  const full = spawnSync('sh', ['-c', 'ulimit -f 0; exec "$0" "$@"', process.execPath, '-e', script])
  expect(String(full.stdout)).toBe('EFBIG\n')
  expect(existsSync(file)).toBe(false)
  expect(Object.keys(loadSecrets(dir.path)).length).toBe(3)
  expect(statSync(file).mode & 0o777).toBe(0o600)
})

test.each([
  ['', /^.*dev\.env has no SPARROW_SECRET\. Restore the file.*\n$/],
  [undefined, /^EISDIR: .*\n$/],
])('the command line says what ails its secrets in one line: %j', (text, line) => {
  const file = join(dir.path, 'dev.env')
  if (text === undefined) mkdirSync(file)
  else writeFileSync(file, text)
  const { ADMIN_SECRET: _, ...env } = process.env
  const { status, stderr } = spawnSync(process.execPath, [ADMIN, 'accounts'], {
    encoding: 'utf8',
    env: { ...env, SPARROW_URL: 'http://127.0.0.1:9', SPARROW_HOME: dir.path },
  })
  expect([status, stderr]).toEqual([1, expect.stringMatching(line)])
})

test('secrets are read as the Worker reads them: quotes, spaces and line ends of Windows are not part of them', () => {
  const lines = [`SPARROW_SECRET="a=b#c"`, ` ADMIN_SECRET = 'd' # of today`, 'export JOIN_TOKEN=e', '']
  writeFileSync(join(dir.path, 'dev.env'), lines.join('\r\n'))
  expect(loadSecrets(dir.path)).toEqual({ SPARROW_SECRET: 'a=b#c', ADMIN_SECRET: 'd', JOIN_TOKEN: 'e' })
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

/** `undefined` where it is not listed any more. */
const isZombie = (pid: number): boolean | undefined => {
  try {
    return /\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return undefined
  }
}

test.runIf(process.platform === 'linux')('a group whose leader is gone is ended by what is left of it', async () => {
  const leads = `const { spawn } = require('node:child_process')
    console.log(spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' }).pid)
    setInterval(() => {}, 1000)`
  const leader = spawn(process.execPath, ['-e', leads], { detached: true, stdio: ['ignore', 'pipe', 'ignore'] })
  const member = Number(await new Promise((told) => leader.stdout.once('data', told)))
  const file = join(dir.path, 'processes')
  remember(dir.path, leader.pid ?? 0)
  remember(dir.path, member, leader.pid)
  writeFileSync(file, readFileSync(file, 'utf8').replaceAll('"stackIs":"', '"stackIs":"gone '))
  const gone = ended(leader)
  leader.kill('SIGKILL')
  await gone
  try {
    expect(await endLeftovers(dir.path)).toBe(1)
    expect(isZombie(member) ?? true).toBe(true)
  } finally {
    spawnSync('kill', ['-KILL', '--', `-${leader.pid}`])
  }
})

test.runIf(process.platform === 'linux')('what has ended is gone, though nobody asked how it ended', async () => {
  // sleep asks after none of its children, as the first process of a container may not.
  const script = 'sleep 600 & echo $!; exec sleep 600'
  const parent = spawn('sh', ['-c', script], { detached: true, stdio: ['ignore', 'pipe', 'ignore'] })
  const stack = Number(await new Promise((told) => parent.stdout.once('data', told)))
  const file = join(dir.path, 'processes')
  const left = idle()
  const over = ended(left)
  remember(dir.path, stack)
  remember(dir.path, left.pid ?? 0)
  const [ofStack, ofLeft] = readFileSync(file, 'utf8').trim().split('\n')
  const { pid, pidIs } = JSON.parse(ofStack ?? '')
  writeFileSync(file, JSON.stringify({ ...JSON.parse(ofLeft ?? ''), stack: pid, stackIs: pidIs }))
  process.kill(stack, 'SIGKILL')
  await vi.waitFor(() => expect(isZombie(stack)).toBe(true))
  try {
    expect(await endLeftovers(dir.path)).toBe(1)
    await over
  } finally {
    for (const child of [parent, left]) child.kill('SIGKILL')
  }
})
