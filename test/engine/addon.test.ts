// The border between the addon and Node, in a process of its own: what goes wrong there may end it.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const CHILD = join(import.meta.dirname, 'addon_child.ts')

test.each([
  ['a listener that throws is heard of, and costs no other sequence its events', 'listener', '40 of a listener\n'],
  ['a thread that ends while its engine opens or works takes nothing else with it', 'threads', 'still here\n'],
])('%s', (_, what, said) => {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [CHILD, what], { encoding: 'utf8' })
  expect({ status, signal, stdout }, stderr).toEqual({ status: 0, signal: null, stdout: said })
})
