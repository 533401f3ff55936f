// Alternatives that begin with the same bytes, as the grammar library reads what is emitted for them: exactly those, whatever
// characters share their first bytes.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { deepseekV32 } from '../../schema/chat/deepseek_v32.ts'
import { SchemaGrammar } from '../../schema/grammar/json_schema.ts'
import { Rules } from '../../schema/grammar/rules.ts'
import { languageOf } from './grammar_language.ts'

const grammarOf = (schema: object, wanted: 'json' | 'raw strings' = 'json'): string => {
  const rules = new Rules()
  const piece = new SchemaGrammar(rules, schema, 't').value(schema, [], wanted)
  const grammar = piece ? rules.write(piece) : { fault: 'none' }
  if (!('text' in grammar)) throw new Error(grammar.fault)
  return grammar.text
}

/** Characters of one, two or all but the last byte in common. */
const ALPHABETS = ['éèê', 'éèab', 'éàλμ', '漢漣一丁伀', '漢漣ꂢ', '😀😁🚀🠀𠀀', 'é漢漣😀a', 'ࠀࠁఀကáa', 'ab']

test('an enum of any texts allows them and nothing else', async () => {
  const sets = fc
    .constantFrom(...ALPHABETS)
    .chain((alphabet) =>
      fc.uniqueArray(fc.string({ unit: fc.constantFrom(...alphabet), maxLength: 3 }), { minLength: 1, maxLength: 6 }),
    )
  const wanted = fc.constantFrom('json' as const, 'raw strings' as const)
  await fc.assert(
    fc.asyncProperty(sets, wanted, async (values, kind) => {
      const found = await languageOf(grammarOf({ enum: values }, kind), values.length)
      expect(found).toEqual(values.map((value) => (kind === 'json' ? JSON.stringify(value) : value)).sort())
    }),
    { numRuns: 1000, examples: [[['😁😁🚀', '😀'], 'json']] },
  )
})

// One branch has no text of its own, so that the enums stay side by side.
test('enums beside each other allow their values and nothing else', async () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 3 })
  const words = fc.uniqueArray(word, { minLength: 1, maxLength: 3 })
  await fc.assert(
    fc.asyncProperty(fc.array(words, { minLength: 2, maxLength: 3 }), async (enums) => {
      const array = { type: 'array', minItems: 1, prefixItems: [{ const: 0 }], maxItems: 1 }
      const found = await languageOf(grammarOf({ anyOf: [...enums.map((each) => ({ enum: each })), array] }), 20, 12)
      const values = [...new Set(enums.flat())].map((value) => JSON.stringify(value))
      expect(found.filter((text) => text.startsWith('"'))).toEqual(values.sort())
    }),
    { numRuns: 100 },
  )
})

// The library joined what the calls begin with and what they end with: "yb" was a tool too.
test('no tool is called but those that there are', async () => {
  const name = fc.string({ unit: fc.constantFrom('a', 'b', 'x', 'y'), minLength: 1, maxLength: 4 })
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(name, { minLength: 2, maxLength: 5 }), async (names) => {
      const tools = names.map((each) => ({
        ...{ name: each, strict: true, at: 't' },
        schema: { type: 'object', properties: {} },
      }))
      const shape = { thinking: false, response: undefined, tools, choice: 'required', parallel: false } as const
      const made = deepseekV32.grammar(shape)
      if (!made.ok) throw new Error(made.error.message)
      const called = (await languageOf(made.value.text, 20, 80)).map((text) => /name="(.*?)"/.exec(text)?.[1])
      expect(called).toEqual(names.sort())
    }),
    { numRuns: 150, examples: [[['ya', 'xb', 'xa']]] },
  )
})
