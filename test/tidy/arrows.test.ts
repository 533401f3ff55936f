// Imports point one way: edge -> schema <- gpu-node; edge and node never meet, schema knows neither.
import { dirname, join, normalize } from 'node:path'
import { expect, test } from 'vitest'
import { sources } from './sources.ts'

const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  edge: ['edge', 'schema'],
  'gpu-node': ['gpu-node', 'schema'],
  schema: ['schema'],
}

const IMPORT = /(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g

test('no import crosses a border', () => {
  const wrong: string[] = []
  let seen = 0
  for (const { path, text } of sources('ts', 'tsx')) {
    const allowed = ALLOWED[path.split('/')[0] ?? '']
    if (!allowed) continue
    for (const [, target = ''] of text.matchAll(IMPORT)) {
      if (!target.startsWith('.')) continue
      seen++
      const top = normalize(join(dirname(path), target)).split('/')[0] ?? ''
      if (!allowed.includes(top)) wrong.push(`${path} imports ${target}`)
    }
  }
  expect(seen).toBeGreaterThan(20)
  expect(wrong).toEqual([])
})

test('schema does no I/O', () => {
  const io = /['"](?:node:(?!crypto)[a-z_/]+|cloudflare:[a-z]+|hono)['"]/
  const wrong = sources('ts').filter(({ path, text }) => path.startsWith('schema/') && io.test(text))
  expect(wrong.map(({ path }) => path)).toEqual([])
})

test('only addon.cc knows about Node', () => {
  const wrong = sources('cc', 'h', 'cu').filter(
    ({ path, text }) => /#include\s*[<"](?:napi|node_api)/.test(text) && !path.endsWith('/addon.cc'),
  )
  expect(wrong.map(({ path }) => path)).toEqual([])
})
