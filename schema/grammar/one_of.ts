// Whether the branches of a `oneOf` exclude each other, so that a value of one of them is a value of no other.
import { isSchema, type Schema, typesOf } from './keywords.ts'

const resolved = (branch: unknown, root: unknown): Schema | undefined => {
  let at: unknown = branch
  for (let hops = 0; isSchema(at) && typeof at.$ref === 'string' && hops < 8; hops++) {
    let target: unknown = root
    for (const step of at.$ref.split('/').slice(1)) target = isSchema(target) ? target[step] : undefined
    at = target
  }
  return isSchema(at) ? at : undefined
}

/** Values that `schema` is limited to, as JSON texts. */
const constants = (schema: unknown): ReadonlySet<string> | undefined => {
  if (!isSchema(schema)) return undefined
  if (schema.const !== undefined) return new Set([JSON.stringify(schema.const)])
  return Array.isArray(schema.enum) ? new Set(schema.enum.map((value) => JSON.stringify(value))) : undefined
}

const kinds = (schema: Schema): ReadonlySet<string> | undefined => {
  if (schema.type === undefined) return undefined
  // Integers are numbers.
  return new Set(typesOf(schema, []).map((type) => (type === 'integer' ? 'number' : type)))
}

/** What tells a branch from others. */
interface Branch {
  readonly values: ReadonlySet<string> | undefined
  readonly kinds: ReadonlySet<string> | undefined
  /** Values of an object's required properties that are limited to some. */
  readonly tags: ReadonlyMap<string, ReadonlySet<string>>
}

const branchOf = (schema: Schema): Branch => {
  const { properties, required, type } = schema
  const tags = new Map<string, ReadonlySet<string>>()
  if (type === 'object' && isSchema(properties) && Array.isArray(required)) {
    for (const name of new Set(required.map(String))) {
      const values = Object.hasOwn(properties, name) ? constants(properties[name]) : undefined
      if (values) tags.set(name, values)
    }
  }
  return { values: constants(schema), kinds: kinds(schema), tags }
}

/** Some milliseconds; what would take more is as good as not apart. */
const COMPARISONS_MAX = 2_000_000

class Comparison {
  #left = COMPARISONS_MAX

  #disjoint(a: ReadonlySet<string> | undefined, b: ReadonlySet<string> | undefined): boolean {
    if (a === undefined || b === undefined) return false
    const [few, many] = a.size < b.size ? [a, b] : [b, a]
    this.#left -= few.size
    if (this.#left < 0) return false
    for (const item of few) if (many.has(item)) return false
    return true
  }

  differ(a: Branch, b: Branch): boolean {
    if (--this.#left < 0) return false
    if (this.#disjoint(a.values, b.values) || this.#disjoint(a.kinds, b.kinds)) return true
    return [...a.tags].some(([name, values]) => this.#disjoint(values, b.tags.get(name)))
  }
}

export const apart = (branches: readonly unknown[], root: unknown): boolean => {
  const schemas = branches.map((branch) => resolved(branch, root))
  const known = schemas.filter((schema) => schema !== undefined).map(branchOf)
  if (known.length < schemas.length) return schemas.length < 2
  const comparison = new Comparison()
  for (const [i, a] of known.entries())
    for (let j = i + 1; j < known.length; j++) {
      const b = known[j]
      if (b && !comparison.differ(a, b)) return false
    }
  return true
}
