// The native test programs, built when needed: every operation of every backend, the caches, and the whole engine, one
// line each.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, test } from 'vitest'
import { GOLDENS } from './golden.ts'

const BUILD_SCRIPT = fileURLToPath(new URL('../../scripts/native_tests.mjs', import.meta.url))

let programs = ''
beforeAll(() => {
  const built = spawnSync(process.execPath, [BUILD_SCRIPT, '--build'], { encoding: 'utf8' })
  expect(built.status, built.stderr).toBe(0)
  programs = built.stdout.trim()
}, 300_000)

test('every operation of every instruction set, against fixtures and the reference', () => {
  const done = spawnSync(join(programs, 'op_test'), [join(GOLDENS, 'components')], { encoding: 'utf8' })
  const lines = done.stdout.split('\n').filter((line) => line !== '')
  expect(lines.filter((line) => !line.startsWith('ok ')).join('\n') + done.stderr).toBe(
    `0 of ${lines.length - 1} failed`,
  )
  expect(done.status).toBe(0)
  for (const isa of ['reference', 'scalar']) {
    for (const operation of ['matmul', 'gate', 'experts', 'index_select', 'attend'])
      expect(lines.some((line) => line.startsWith(`ok     ${isa} `) && line.includes(` ${operation} `))).toBe(true)
  }
})

test('every processor of the sampler against a slow twin, draws against their probabilities, whose turn it is', () => {
  const done = spawnSync(join(programs, 'sampler_test'), [], { encoding: 'utf8' })
  const lines = done.stdout.split('\n').filter((line) => line !== '')
  expect(lines.filter((line) => !line.startsWith('ok ')).join('\n') + done.stderr).toBe('')
  expect(done.status).toBe(0)
  expect(lines.length).toBe(43)
})

test.each(['v32_groups_yarn', 'v32_mtp_copies'])('the whole engine under callers on several threads: %s', (name) => {
  const done = spawnSync(join(programs, 'engine_test'), [join(GOLDENS, name)], { encoding: 'utf8' })
  const lines = done.stdout.split('\n').filter((line) => line !== '')
  expect(lines.filter((line) => !line.startsWith('ok ')).join('\n') + done.stderr).toBe('')
  expect(done.status).toBe(0)
  expect(lines.length).toBe(30)
})

test('page pool and disk tier, without a model', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'sparrow-cache-'))
  try {
    const done = spawnSync(join(programs, 'cache_test'), [scratch], { encoding: 'utf8' })
    const lines = done.stdout.split('\n').filter((line) => line !== '')
    expect(lines.filter((line) => !line.startsWith('ok ')).join('\n') + done.stderr).toBe('')
    expect(done.status).toBe(0)
    expect(lines.length).toBe(23)
  } finally {
    rmSync(scratch, { recursive: true })
  }
})
