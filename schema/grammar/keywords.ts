// The keywords of JSON Schema by what becomes of them: those that a grammar can honour, and those that it has no form for
// and that are refused by name. All others are annotations, as the standard says.

/** A fault of the client's schema: the keyword, where it stands, and why. */
export class SchemaFault extends Error {
  /** Path of the schema that holds the keyword, then the keyword. */
  readonly path: readonly string[]

  constructor(path: readonly string[], keyword: string, why: string) {
    super(why)
    this.path = keyword === '' ? path : [...path, keyword]
  }
}

/** Keywords that a grammar could only honour by counting or by looking twice. */
const REFUSED = [
  ...['not', 'if', 'then', 'else', 'dependentSchemas', 'dependentRequired', 'dependencies', 'unevaluatedItems'],
  ...['unevaluatedProperties', 'contains', 'minContains', 'maxContains', 'patternProperties', 'propertyNames'],
  ...['maxProperties', 'multipleOf', '$dynamicRef', '$dynamicAnchor', '$recursiveRef', '$recursiveAnchor'],
]

const OWN = {
  object: ['properties', 'required', 'additionalProperties', 'minProperties'],
  array: ['items', 'prefixItems', 'additionalItems', 'minItems', 'maxItems', 'uniqueItems'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
} as const

export const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const
export type TypeName = (typeof TYPES)[number]

export type Schema = Readonly<Record<string, unknown>>

export const isSchema = (value: unknown): value is Schema =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const KNOWN = new Set<string>([
  ...[...OWN.object, ...OWN.array, ...OWN.string, ...OWN.number, ...REFUSED],
  ...['type', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref'],
])

/** Keywords of `schema` that say something about a value. */
const speaking = (schema: Schema): string[] =>
  Object.keys(schema).filter((key) => schema[key] !== undefined && KNOWN.has(key))

/** Every name is a string: Zod says so of each record. */
const namesAny = (value: unknown): boolean =>
  value === true ||
  (isSchema(value) && Object.entries(value).every(([key, inner]) => key === 'type' && inner === 'string'))

/** multipleOf 1 of an integer, uniqueItems false and the like ask for nothing. */
const asksNothing = (keyword: string, value: unknown): boolean =>
  (keyword === 'multipleOf' && value === 1) ||
  (keyword === 'unevaluatedProperties' && typeof value === 'boolean') ||
  (keyword === 'unevaluatedItems' && value === true) ||
  (keyword === 'propertyNames' && namesAny(value))

export const refuseImpossible = (schema: Schema, path: readonly string[]): void => {
  const found = REFUSED.find((keyword) => schema[keyword] !== undefined && !asksNothing(keyword, schema[keyword]))
  if (found !== undefined) throw new SchemaFault(path, found, 'is not supported')
}

/** Refuses every speaking keyword of `schema` beside `keyword` that is not in `allowed`. */
export const refuseBeside = (
  schema: Schema,
  path: readonly string[],
  keyword: string,
  allowed: readonly string[],
): void => {
  const other = speaking(schema).find((key) => key !== keyword && !allowed.includes(key))
  if (other !== undefined) throw new SchemaFault(path, other, `is not supported beside ${keyword}`)
}

/** Types that `schema` allows; without `type`, those that its other keywords speak of. */
export const typesOf = (schema: Schema, path: readonly string[]): readonly TypeName[] => {
  const { type } = schema
  if (type !== undefined) {
    const names = Array.isArray(type) ? type : [type]
    const known = names.filter((name): name is TypeName => TYPES.some((other) => other === name))
    if (known.length < names.length || names.length === 0)
      throw new SchemaFault(path, 'type', 'is no type of JSON Schema')
    return known
  }
  const spoken = (['object', 'array', 'string', 'number'] as const).filter((name) =>
    OWN[name].some((keyword) => schema[keyword] !== undefined),
  )
  return spoken.length > 0 ? spoken : ['object', 'array', 'string', 'number', 'boolean', 'null']
}

/** A whole number from 0 up, or undefined where the keyword is absent. */
export const countAt = (schema: Schema, path: readonly string[], keyword: string, most: number): number | undefined => {
  const value = schema[keyword]
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0)
    throw new SchemaFault(path, keyword, 'must be a whole number from 0 up')
  if (value > most) throw new SchemaFault(path, keyword, `is supported up to ${most}`)
  return value
}
