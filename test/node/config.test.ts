// Settings of the node: defaults, and errors that name the setting and say what is wrong with it.
import { expect, test } from 'vitest'
import { readSettings, StartError } from '../../gpu-node/config.ts'

const base = { SPARROW_EDGE_URL: 'http://127.0.0.1:8787', SPARROW_JOIN_TOKEN: 'join' }

test('two settings are enough; other programs and empty variables do not matter', () => {
  const settings = readSettings({ ...base, PATH: '/bin', SPARROW_PORT: '1', SPARROW_THREADS: '' })
  expect(settings).toMatchObject({ SPARROW_NODE_PORT: 8788, SPARROW_MODEL_NAME: 'sparrow-mini', SPARROW_ISA: 'auto' })
  expect(settings.SPARROW_THREADS).toBeUndefined()
})

const wrong: [string, Record<string, string>][] = [
  ['SPARROW_EDGE_URL', { SPARROW_JOIN_TOKEN: 'join' }],
  ['SPARROW_EDGE_URL', { ...base, SPARROW_EDGE_URL: 'localhost:8787' }],
  ['SPARROW_NODE_ADDRESS', { ...base, SPARROW_NODE_ADDRESS: 'ftp://host' }],
  ['SPARROW_JOIN_TOKEN', { SPARROW_EDGE_URL: 'http://127.0.0.1' }],
  ['SPARROW_THREAD is not a setting', { ...base, SPARROW_THREAD: '2' }],
  ['SPARROW_THREADS', { ...base, SPARROW_THREADS: 'two' }],
  ['SPARROW_NODE_PORT', { ...base, SPARROW_NODE_PORT: '70000' }],
  ['SPARROW_ISA', { ...base, SPARROW_ISA: 'sse9' }],
  ['SPARROW_NODE_ADDRESS', { ...base, SPARROW_NODE_HOST: '0.0.0.0' }],
]
test.each(wrong)('names %s', (name, env) => {
  expect(() => readSettings(env)).toThrow(StartError)
  expect(() => readSettings(env)).toThrow(name)
})
