// JSON text in Python's spelling: nothing of it may pass through a JavaScript value that would change it.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { jsonChildren, pythonJson } from '../../schema/chat/python_json.ts'

test.each([
  ['{"b":1,"a":[1,2]}', '{"b": 1, "a": [1, 2]}'],
  ['{"10":1,"9":2,"x":3}', '{"10": 1, "9": 2, "x": 3}'],
  ['[1.0,1e5,-0,12345678901234567890123,0.10]', '[1.0, 1e5, -0, 12345678901234567890123, 0.10]'],
  ['"a,b:c{\\"d\\\\"', '"a,b:c{\\"d\\\\"'],
  ['"\\u00e9\\/\\n\\u0001"', '"é/\\n\\u0001"'],
  [' { "k" :\n[ ] , "l":{ } , "m":null } ', '{"k": [], "l": {}, "m": null}'],
  ['true', 'true'],
  ['""', '""'],
])('%s', (text, expected) => {
  expect(pythonJson(text)).toBe(expected)
})

test.each(['', '{', '{"a":}', '{a:1}', "{'a':1}", '[1,]', '01', 'nul', '"\u0000"', '1 2'])('%j is no JSON', (text) => {
  expect(pythonJson(text)).toBeUndefined()
  expect(jsonChildren(text)).toBeUndefined()
})

test('any JSON keeps its meaning', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), fc.constantFrom(0, 1, 2), (value, indent) => {
      const text = JSON.stringify(value, undefined, indent)
      expect(JSON.parse(pythonJson(text) ?? '')).toEqual(JSON.parse(text))
    }),
  )
})

test('children hold the text of every member', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 })), fc.constantFrom(0, 2), (value, indent) => {
      const text = JSON.stringify(value, undefined, indent)
      const children = jsonChildren(text) ?? []
      expect(children.map(({ key }) => key)).toEqual(Object.keys(value))
      for (const { key, text: json } of children) expect(JSON.parse(json)).toEqual(JSON.parse(text)[key])
    }),
  )
  expect(jsonChildren('[ 1.0 , "x,y", {"a":[2]} ]')).toEqual([
    { key: '0', text: '1.0' },
    { key: '1', text: '"x,y"' },
    { key: '2', text: '{"a":[2]}' },
  ])
  expect(jsonChildren('{"a":1,"b":2,"a":3}')).toEqual([
    { key: 'a', text: '3' },
    { key: 'b', text: '2' },
  ])
  expect(jsonChildren('7')).toBeUndefined()
})

test('depth and length are no danger', () => {
  const deep = `${'['.repeat(50_000)}${']'.repeat(50_000)}`
  expect(pythonJson(deep)).toBe(deep)
  const long = JSON.stringify(['"\\'.repeat(500_000)])
  expect(pythonJson(long)).toBe(long)
})
