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
const constants = (schema: unknown): string[] | undefined => {
  if (!isSchema(schema)) return undefined
  if (schema.const !== undefined) return [JSON.stringify(schema.const)]
  return Array.isArray(schema.enum) ? schema.enum.map((value) => JSON.stringify(value)) : undefined
}

const disjoint = (a: readonly string[] | undefined, b: readonly string[] | undefined): boolean =>
  a !== undefined && b !== undefined && a.every((item) => !b.includes(item))

const kinds = (schema: Schema): string[] | undefined => {
  if (schema.type === undefined) return undefined
  // Integers are numbers.
  return typesOf(schema, []).map((type) => (type === 'integer' ? 'number' : type))
}

const differ = (a: Schema, b: Schema): boolean => {
  if (disjoint(constants(a), constants(b)) || disjoint(kinds(a), kinds(b))) return true
  if (!isSchema(a.properties) || !isSchema(b.properties) || a.type !== 'object' || b.type !== 'object') return false
  const [ofA, ofB] = [a.properties, b.properties]
  const both = Object.keys(ofA).filter((name) =>
    [a, b].every(({ required }) => Array.isArray(required) && required.includes(name)),
  )
  return both.some((name) => disjoint(constants(ofA[name]), constants(ofB[name])))
}

export const apart = (branches: readonly unknown[], root: unknown): boolean => {
  const schemas = branches.map((branch) => resolved(branch, root))
  return schemas.every((a, i) => schemas.slice(i + 1).every((b) => a !== undefined && b !== undefined && differ(a, b)))
}
