// What the operator does in a shell: start, paste the curl line, administer, start twice by mistake, press Ctrl-C.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ROOT } from '../../scripts/stack.ts'
import { freePort } from './stack.ts'

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const home = mkdtempSync(join(tmpdir(), 'sparrow-shell-'))
let environment: NodeJS.ProcessEnv
let started: ChildProcess
let banner = ''

const run = (command: string, args: readonly string[], env = environment): Promise<Ended> =>
  new Promise((resolve) => {
    execFile(command, args, { cwd: ROOT, env }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
    )
  })

const admin = (...args: string[]): Promise<Ended> => run(process.execPath, ['scripts/admin.ts', ...args])

const parentOf = (pid: number): number => {
  try {
    const [state, parent] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    return state === 'Z' ? 0 : Number(parent)
  } catch {
    return 0
  }
}

/** Empty for one that has ended meanwhile. */
const commandOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}

const environmentOf = (pid: string): string => {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8')
  } catch {
    return ''
  }
}

/** A process and all that it started, living ones. */
const family = (root: number): number[] => {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
  const found = new Set(parentOf(root) ? [root] : [])
  for (let before = -1; before !== found.size; ) {
    before = found.size
    for (const pid of all) if (found.has(parentOf(pid))) found.add(pid)
  }
  return [...found]
}

/** As the banner has it. */
const curlLine = (): string => banner.split('\n').find((text) => text.includes('curl ')) ?? ''

/** All that runs on this state, whoever its parent is. */
const onHome = (): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && environmentOf(name).includes(`SPARROW_HOME=${home}\0`))
    .map(Number)
    .filter(parentOf)

/** Resolves when the banner stands there. */
const start = async (): Promise<void> => {
  // Its own process group, as a shell gives it: Ctrl-C reaches every member.
  started = spawn(process.execPath, ['scripts/serve.ts'], { cwd: ROOT, env: environment, detached: true })
  banner = await new Promise((resolve, reject) => {
    let [text, errors] = ['', '']
    started.stdout?.on('data', (part: Buffer) => {
      text += part
      if (text.includes('Ctrl-C')) resolve(text)
    })
    started.stderr?.on('data', (part: Buffer) => {
      errors += part
    })
    started.on('exit', () => reject(new Error(`it ended: ${errors}`)))
  })
}

beforeAll(async () => {
  const ports = { SPARROW_PORT: String(await freePort()), SPARROW_NODE_PORT: String(await freePort()) }
  const quick = { SPARROW_RESTART_SECONDS: '0,0.1,0.1,0.1,0.1' }
  environment = {
    ...process.env,
    ...ports,
    ...quick,
    // As shells spell "not set".
    SPARROW_MODEL_NAME: '',
    SPARROW_HOME: home,
    SPARROW_URL: `http://127.0.0.1:${ports.SPARROW_PORT}`,
  }
  // A disk that has no room for a log.
  symlinkSync('/dev/full', join(home, 'node.log'))
  await start()
})

afterAll(() => {
  for (const pid of onHome()) process.kill(pid, 'SIGKILL')
  rmSync(home, { recursive: true, force: true })
})

test('the curl line of the banner works when pasted', async () => {
  const { stdout } = await run('bash', ['-c', curlLine()])
  expect(JSON.parse(stdout).choices[0].message.content).toBe('The capital of France is Paris.')
})

test('the command line makes accounts and keys, and a repeated top-up counts once', async () => {
  const account = JSON.parse((await admin('account', 'create', '--name', 'acme', '--credit', '2', '--json')).stdout)
  expect(account).toMatchObject({ name: 'acme', balanceNano: 2_000_000_000 })
  const key = JSON.parse((await admin('key', 'create', '--account', 'acme', '--name', 'ci', '--json')).stdout)
  expect(key.key).toMatch(/^sk-/)
  for (let i = 0; i < 2; i++) {
    const topUp = await admin('topup', '--account', 'acme', '--usd', '0.5', '--idempotency-key', 'bill 7', '--json')
    expect(JSON.parse(topUp.stdout)).toMatchObject({ balanceNano: 2_500_000_000 })
  }
  const models = () =>
    fetch(`${environment.SPARROW_URL}/v1/models`, { headers: { authorization: `Bearer ${key.key}` } })
  expect((await models()).status).toBe(200)
  expect((await admin('key', 'revoke', '--id', key.id)).code).toBe(0)
  expect((await models()).status).toBe(401)
  expect((await admin('audit')).code).toBe(0)
})

test('a wrong command line gets one line and a failing status', async () => {
  const missing = await admin('topup', '--account', 'acme')
  expect(missing.code).not.toBe(0)
  expect(missing.stderr).toBe('--usd is needed\n')
  const nobody = await admin('ledger', '--account', 'nobody')
  expect(nobody.code).not.toBe(0)
  expect(nobody.stderr.trim().split('\n')).toHaveLength(1)
})

test('a second start on the same state ends before it touches the books, whatever its ports', async () => {
  const ports = { SPARROW_PORT: String(await freePort()), SPARROW_NODE_PORT: String(await freePort()) }
  for (const changes of [{}, ports]) {
    const { code, stderr } = await run(process.execPath, ['scripts/serve.ts'], { ...environment, ...changes })
    expect(code).toBe(1)
    expect(stderr).toBe(
      `sparrow: npm start runs on ${home} already (process ${started.pid}). Stop it, or give this one its own SPARROW_HOME, SPARROW_PORT and SPARROW_NODE_PORT.\n`,
    )
  }
})

test('a second start on the same port says what to do, in one line', async () => {
  const { code, stderr } = await run(process.execPath, ['scripts/serve.ts'], {
    ...environment,
    SPARROW_HOME: join(home, 'other'),
  })
  expect(code).toBe(1)
  expect(stderr).toMatch(/^sparrow: port \d+ is busy\. .*SPARROW_PORT=\d+ npm start\n$/)
})

test('a setting that the Worker does not take ends the start, in one line', async () => {
  const [other, port, nodePort] = [join(home, 'wrong'), await freePort(), await freePort()]
  mkdirSync(other)
  const secrets = readFileSync(join(home, 'dev.env'), 'utf8')
  writeFileSync(join(other, 'dev.env'), `${secrets}JOIN_TOKEN_PREVIOUS=short\n`)
  const { code, stderr } = await run(process.execPath, ['scripts/serve.ts'], {
    ...environment,
    ...{ SPARROW_HOME: other, SPARROW_PORT: String(port), SPARROW_NODE_PORT: String(nodePort) },
  })
  expect(code).toBe(1)
  expect(stderr).toMatch(/\nsparrow: a setting in .*dev\.env or wrangler\.toml is wrong; .*edge\.log says which\n$/)
  expect(readFileSync(join(other, 'edge.log'), 'utf8')).toContain('JOIN_TOKEN_PREVIOUS must have')
})

test('a start over books whose D1 is lost makes no new one, and says in one line of the log what is missing', async () => {
  const [other, port, nodePort] = [join(home, 'lost'), await freePort(), await freePort()]
  mkdirSync(other)
  for (const name of ['dev.env', 'api_key']) writeFileSync(join(other, name), readFileSync(join(home, name)))
  const { code, stderr } = await run(process.execPath, ['scripts/serve.ts'], {
    ...environment,
    ...{ SPARROW_HOME: other, SPARROW_PORT: String(port), SPARROW_NODE_PORT: String(nodePort) },
  })
  expect(code).toBe(1)
  expect(stderr).toMatch(/\nsparrow: the Worker did not start; see .*edge\.log\n$/)
  expect(readFileSync(join(other, 'edge.log'), 'utf8')).toMatch(
    /^\/.*\/d1: D1 is empty, .* its file is lost\. README.*\n$/,
  )
})

/** All that serves. */
const PROCESSES = [/workerd serve.* worker.capnp/, /scripts\/worker\/main.ts/, /gpu-node\/main.ts/]

test('a Worker or node that dies is started again, with all it knew', async () => {
  for (const name of PROCESSES) {
    const victim = family(started.pid ?? 0).find((pid) => name.test(commandOf(pid)))
    expect(victim, String(name)).toBeDefined()
    process.kill(victim ?? 0, 'SIGKILL')
    const ask = async () => (await run('bash', ['-c', `${curlLine()} --max-time 5`])).stdout
    await expect.poll(ask, { timeout: 90_000 }).toContain('Paris')
  }
  expect((await admin('audit')).code).toBe(0)
}, 300_000)

test('a stack that was killed is started again over what it left running, with all it knew', async () => {
  const orphans = family(started.pid ?? 0)
  expect(orphans.length).toBeGreaterThan(2)
  const killed = new Promise((resolve) => started.once('exit', resolve))
  started.kill('SIGKILL')
  await killed
  // Each by itself: any of them may end before the next start, and the others go on.
  const record = readFileSync(join(home, 'processes'), 'utf8').trim().split('\n')
  const recorded = record.map((line) => (JSON.parse(line) as { pid: number }).pid)
  expect(recorded).toEqual(expect.arrayContaining(orphans.filter(parentOf)))
  await start()
  expect(orphans.filter(parentOf)).toEqual([])
  expect((await run('bash', ['-c', curlLine()])).stdout).toContain('Paris')
  expect((await admin('audit')).code).toBe(0)
})

test('Worker and node killed together, as a machine out of memory does, are both started again', async () => {
  const victims = family(started.pid ?? 0).filter((pid) => PROCESSES.some((name) => name.test(commandOf(pid))))
  expect(victims.length).toBe(PROCESSES.length)
  for (const pid of victims) process.kill(pid, 'SIGKILL')
  const ask = async () => (await run('bash', ['-c', `${curlLine()} --max-time 5`])).stdout
  await expect.poll(ask, { timeout: 90_000 }).toContain('Paris')
  expect(started.exitCode).toBeNull()
})

test('Ctrl-C ends every process', async () => {
  const processes = family(started.pid ?? 0)
  expect(processes.length).toBeGreaterThan(2)
  const ended = new Promise((resolve) => started.once('exit', resolve))
  process.kill(-(started.pid ?? 0), 'SIGINT')
  expect(await ended).toBe(0)
  await expect.poll(() => processes.filter(parentOf), { timeout: 30_000 }).toEqual([])
})

test('Ctrl-C while the node is being started again is not taken for its failing', async () => {
  await start()
  let said = ''
  started.stderr?.on('data', (part: Buffer) => {
    said += part
  })
  const ended = new Promise((resolve) => started.once('exit', resolve))
  const node = family(started.pid ?? 0).find((pid) => /gpu-node\/main.ts/.test(commandOf(pid)))
  process.kill(node ?? 0, 'SIGKILL')
  await expect.poll(() => said, { timeout: 30_000 }).toContain('starting it again')
  process.kill(-(started.pid ?? 0), 'SIGINT')
  expect(await ended).toBe(0)
  expect(said).toMatch(/starting it again \.\.\.\nsparrow: stopping \.\.\.\n$/)
})

test('where a restart cannot be written down, for want of room, it gives up and leaves nothing running', async () => {
  await start()
  const record = join(home, 'processes')
  rmSync(record)
  symlinkSync('/dev/full', record)
  const ended = new Promise((resolve) => started.once('exit', resolve))
  const node = family(started.pid ?? 0).find((pid) => /gpu-node\/main.ts/.test(commandOf(pid)))
  process.kill(node ?? 0, 'SIGKILL')
  expect(await ended).toBe(1)
  await expect.poll(onHome, { timeout: 30_000 }).toEqual([])
})
