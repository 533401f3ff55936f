// Habits a machine can check: header comments, no escape hatches, no path or host of somebody's machine in the tree.
import { expect, test } from 'vitest'
import { sources, trackedPaths } from './sources.ts'

test('every source file opens with a comment', () => {
  const bare = sources('ts', 'tsx', 'mjs', 'cc', 'h', 'cu').filter(
    ({ lines }) => !/^(?:\/\/|\/\*|#!)/.test(lines[0] ?? ''),
  )
  expect(bare.map(({ path }) => path)).toEqual([])
})

test('no unfinished business', () => {
  const banned = /\b(?:TODO|FIXME|XXX|HACK)\b/
  const wrong = sources('ts', 'tsx', 'mjs', 'cc', 'h', 'cu', 'py', 'md').filter(
    ({ path, text }) => path !== 'test/tidy/habits.test.ts' && banned.test(text),
  )
  expect(wrong.map(({ path }) => path)).toEqual([])
})

test('no path of a machine, no registry host', () => {
  const local = /\/(?:work|home|root|Users)\/[\w.-]+|\/tmp\/[\w.-]+|registry\.[a-z]+\.(?:org|com)/
  const wrong = sources('ts', 'mjs', 'cc', 'h', 'py', 'md', 'json', 'toml', 'txt').filter(
    ({ path, text }) => path !== 'test/tidy/habits.test.ts' && local.test(text),
  )
  expect(wrong.map(({ path, text }) => `${path}: ${local.exec(text)?.[0]}`)).toEqual([])
})

test('TypeScript has no escape hatch', () => {
  const hatch = /@ts-ignore|@ts-nocheck|biome-ignore/
  const wrong = sources('ts', 'tsx').filter(({ path, text }) => path !== 'test/tidy/habits.test.ts' && hatch.test(text))
  expect(wrong.map(({ path }) => path)).toEqual([])
})

test('the top level keeps its agreed shape', () => {
  const agreed = new Set([
    ...['edge', 'gpu-node', 'schema', 'test', 'scripts'],
    ...['package.json', 'package-lock.json', 'tsconfig.json', 'wrangler.toml', 'biome.json', 'vitest.config.ts'],
    ...['README.md', 'ARCHITECTURE.md', 'CHANGELOG.md', 'LICENSE'],
  ])
  const tops = new Set(trackedPaths().map((path) => path.split('/')[0] ?? ''))
  expect([...tops].filter((top) => !agreed.has(top) && !top.startsWith('.'))).toEqual([])
})
