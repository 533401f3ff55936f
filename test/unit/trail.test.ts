// Trails: as far as two prompts are the same, so are their trails, and no further.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { commonSteps, placeOf, TRAIL_STEP, trailOf } from '../../edge/trail.ts'
import { chatFormatByName } from '../../schema/chat/index.ts'
import { turnsOf } from '../../schema/chat/turns.ts'

const trail = (prompt: string, account = 'a') =>
  trailOf('secret', account, { model: 'm', chatFormat: 'deepseek_v32', prompt })

test('two prompts part in the step that holds their first difference', () => {
  let exact = 0
  const runs = 300
  fc.assert(
    fc.property(fc.string({ minLength: 200, maxLength: 600 }), fc.nat(199), fc.string(), (text, at, rest) => {
      const changed = text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ 1) + rest
      const steps = commonSteps(trail(text).tags, trail(changed).tags)
      expect(steps).toBeGreaterThanOrEqual(Math.min(Math.floor(at / TRAIL_STEP), trail(changed).tags.length))
      if (steps === Math.min(Math.floor(at / TRAIL_STEP), trail(changed).tags.length)) exact++
    }),
    { numRuns: runs, seed: 7 },
  )
  expect(exact).toBe(runs)
})

test('the best of many prompts that have nothing in common has nothing in common', () => {
  const asked = trail('Where did the prompts part? '.repeat(4)).tags
  const others = Array.from(
    { length: 200 },
    (_, i) => trail(`${i} is how this one begins, ${'and goes on '.repeat(9)}`).tags,
  )
  expect(Math.max(...others.map((tags) => commonSteps(asked, tags)))).toBe(0)
})

test('another account, model or secret has another trail; a long prompt is followed to a bound', () => {
  const text = 'x'.repeat(4096)
  expect(commonSteps(trail(text).tags, trail(text).tags)).toBe(256)
  expect(commonSteps(trail(text).tags, trail(text, 'b').tags)).toBeLessThan(4)
  expect(trail('y'.repeat(300_000)).tags.length).toBe((256 * 1024) / TRAIL_STEP)
})

test('a place is named by turn, role and character', () => {
  const prompt = chatFormatByName('deepseek_v32')?.render({
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'First question?' },
      { role: 'assistant', content: 'First answer.' },
      { role: 'user', content: 'Second question?' },
    ],
    ...{ tools: [], thinking: false },
  })
  if (!prompt?.ok) throw new Error('not rendered')
  const turns = turnsOf('deepseek_v32', prompt.value)
  expect(turns.map(({ role }) => role)).toEqual(['system', 'user', 'assistant', 'user', 'assistant'])
  const at = prompt.value.indexOf('Second question?')
  expect(placeOf(turns, at + 7)).toEqual({ message: 3, role: 'user', character: 7 })
  expect(placeOf(turns, 0)).toEqual({ message: 0, role: 'system', character: 0 })
  expect(turnsOf('other', 'plain')).toEqual([{ role: 'user', at: 0 }])
})
