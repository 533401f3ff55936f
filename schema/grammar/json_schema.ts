// JSON Schema to a grammar of its values. What comes out is always valid; where the grammar allows less than the schema
// (order of properties, white space, digits) is said in README. What it cannot promise is refused, keyword and path named.
import { withoutChoices } from './automaton.ts'
import { FORMATS } from './formats.ts'
import {
  anyArray,
  anyInteger,
  anyNumber,
  anyObject,
  anyString,
  anyValue,
  countedString,
  listOf,
  member,
  otherKey,
  type Quoting,
  quoted,
  space,
} from './json_text.ts'
import {
  countAt,
  isSchema,
  refuseBeside,
  refuseImpossible,
  type Schema,
  SchemaFault,
  type TypeName,
  typesOf,
} from './keywords.ts'
import { anyText } from './literals.ts'
import { numberBetween } from './number_range.ts'
import { apart } from './one_of.ts'
import { patternPiece } from './pattern.ts'
import { alt, EMPTY, optional, type Piece, type Rules, seq, text } from './rules.ts'

/** Which values of the schema: all as JSON; only its strings, unquoted; all but its strings. */
export type Wanted = 'json' | 'raw strings' | 'no strings'

const COUNT_MAX = 100_000
const DEPTH_MAX = 64
/** Raw text ends at a control character. */
const isRaw = (value: string): boolean => [...value].every((char) => char >= ' ' || char === '\t' || char === '\n')

type Path = readonly string[]

const literalOf = (value: unknown, wanted: Wanted): string | undefined => {
  if (typeof value !== 'string') return wanted === 'raw strings' ? undefined : JSON.stringify(value)
  if (wanted === 'no strings') return undefined
  if (wanted === 'json') return JSON.stringify(value)
  return isRaw(value) ? value : undefined
}

/** Whether JavaScript rounds such numbers: what the client wrote is not known any more. */
const isRounded = (value: unknown): boolean =>
  typeof value === 'number'
    ? !Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))
    : typeof value === 'object' && value !== null && Object.values(value).some(isRounded)

/** A pointer in a fragment is percent-encoded; what is not stays as it is. */
const decoded = (step: string): string => {
  try {
    return decodeURIComponent(step)
  } catch {
    return step
  }
}

const typeOfValue = (value: unknown): TypeName[] => {
  if (value === null) return ['null']
  if (Array.isArray(value)) return ['array']
  if (typeof value === 'number') return Number.isInteger(value) ? ['number', 'integer'] : ['number']
  const name = typeof value
  return name === 'string' || name === 'boolean' || name === 'object' ? [name] : []
}

const SCALARS: readonly unknown[] = ['string', 'number', 'integer', 'boolean', 'null']

/** Whether only texts without a schema inside them fit `branch`; `type` is that of the schema around it. */
const isScalar = (branch: unknown, type: unknown): boolean =>
  isSchema(branch) && (branch.enum !== undefined || branch.const !== undefined || SCALARS.includes(branch.type ?? type))

/** Turns the parts of one schema document into pieces of `rules`. */
export class SchemaGrammar {
  readonly #rules: Rules
  readonly #root: unknown
  readonly #id: string
  /** References to definitions that no value of the wanted kind fits. */
  readonly #none = new Set<string>()

  /** `id` tells the documents apart that share `rules`. */
  constructor(rules: Rules, root: unknown, id: string) {
    this.#rules = rules
    this.#root = root
    this.#id = id
  }

  /** Values of `schema`; undefined where there is none of the wanted kind. Throws SchemaFault. */
  value(schema: unknown, path: Path, wanted: Wanted = 'json'): Piece | undefined {
    if (path.length > DEPTH_MAX * 2) throw new SchemaFault(path, '', `is nested deeper than ${DEPTH_MAX} levels`)
    if (schema === true) return this.#any(wanted)
    if (schema === false) return undefined
    if (!isSchema(schema)) throw new SchemaFault(path, '', 'must be a schema: an object or a boolean')
    refuseImpossible(schema, path)
    if (schema.$ref !== undefined) return this.#reference(schema, path, wanted)
    if (schema.const !== undefined) {
      refuseBeside(schema, path, 'const', ['type'])
      return this.#enum([schema.const], schema, path, wanted)
    }
    if (schema.enum !== undefined) {
      refuseBeside(schema, path, 'enum', ['type'])
      if (!Array.isArray(schema.enum)) throw new SchemaFault(path, 'enum', 'must be an array')
      return this.#enum(schema.enum, schema, path, wanted)
    }
    if (schema.allOf !== undefined) return this.#allOf(schema, path, wanted)
    if (schema.anyOf !== undefined) return this.#anyOf(schema, 'anyOf', path, wanted)
    if (schema.oneOf !== undefined) return this.#anyOf(schema, 'oneOf', path, wanted)
    const ways = typesOf(schema, path).map((type) => this.#ofType(type, schema, path, wanted))
    return this.#either(ways)
  }

  #either(ways: readonly (Piece | undefined)[]): Piece | undefined {
    const real = ways.filter((way) => way !== undefined)
    return real.length === 0 ? undefined : alt(...real)
  }

  #any(wanted: Wanted): Piece {
    if (wanted === 'json') return anyValue(this.#rules)
    return wanted === 'raw strings' ? anyString(this.#rules, 'raw') : anyValue(this.#rules, false)
  }

  #reference(schema: Schema, path: Path, wanted: Wanted): Piece | undefined {
    const { $ref } = schema
    refuseBeside(schema, path, '$ref', [])
    if (typeof $ref !== 'string' || !/^#(?:\/|$)/.test($ref))
      throw new SchemaFault(path, '$ref', 'must point into the same schema, as "#/$defs/name"')
    const steps = $ref === '#' ? [] : $ref.slice(2).split('/')
    let target: unknown = this.#root
    for (const step of steps) {
      const key = decoded(step).replaceAll('~1', '/').replaceAll('~0', '~')
      const isIn = typeof target === 'object' && target !== null && Object.hasOwn(target, key)
      if (!isIn) throw new SchemaFault(path, '$ref', `points to nothing: ${$ref}`)
      target = (target as Record<string, unknown>)[key]
    }
    // A rule of its own, so that a schema may hold itself. Its path is that of the definition.
    const key = `${this.#id} ${wanted} ${$ref}`
    const rule = this.#rules.shared(key, () => {
      const found = this.value(target, steps, wanted)
      if (!found) this.#none.add(key)
      return found ?? EMPTY
    })
    return this.#none.has(key) ? undefined : rule
  }

  #enum(values: readonly unknown[], schema: Schema, path: Path, wanted: Wanted): Piece | undefined {
    const types = schema.type === undefined ? undefined : typesOf(schema, path)
    const fitting = values.filter(
      (value) => types === undefined || typeOfValue(value).some((name) => types.includes(name)),
    )
    if (fitting.some(isRounded))
      throw new SchemaFault(
        path,
        Object.hasOwn(schema, 'const') ? 'const' : 'enum',
        'is supported for whole numbers up to 2^53',
      )
    const texts = fitting.map((value) => literalOf(value, wanted)).filter((literal) => literal !== undefined)
    return texts.length === 0 ? undefined : anyText(texts)
  }

  #allOf(schema: Schema, path: Path, wanted: Wanted): Piece | undefined {
    refuseBeside(schema, path, 'allOf', [])
    if (!Array.isArray(schema.allOf) || schema.allOf.length !== 1)
      throw new SchemaFault(path, 'allOf', 'is supported with one schema in it')
    return this.value(schema.allOf[0], [...path, 'allOf', '0'], wanted)
  }

  #anyOf(schema: Schema, keyword: 'anyOf' | 'oneOf', path: Path, wanted: Wanted): Piece | undefined {
    refuseBeside(schema, path, keyword, ['type'])
    const branches = schema[keyword]
    if (!Array.isArray(branches) || branches.length === 0)
      throw new SchemaFault(path, keyword, 'must be an array with a schema in it')
    if (keyword === 'oneOf' && !apart(branches, this.#root))
      throw new SchemaFault(
        path,
        keyword,
        'needs branches that differ in type or in a required constant property; anyOf needs none',
      )
    const { type } = schema
    const piece = this.#either(
      branches.map((branch, i) => {
        const at = [...path, keyword, String(i)]
        // A branch that is `true` leaves all that `type` allows.
        if (branch === true) return this.value(type === undefined ? true : { type }, at, wanted)
        if (type === undefined || !isSchema(branch)) return this.value(branch, at, wanted)
        if (branch.type === undefined && branch.$ref === undefined) return this.value({ ...branch, type }, at, wanted)
        if (JSON.stringify(branch.type) !== JSON.stringify(type))
          throw new SchemaFault(path, 'type', `is not supported beside ${keyword}`)
        return this.value(branch, at, wanted)
      }),
    )
    return piece && branches.every((branch) => isScalar(branch, type)) ? withoutChoices(piece, this.#rules) : piece
  }

  #ofType(type: TypeName, schema: Schema, path: Path, wanted: Wanted): Piece | undefined {
    if (type === 'string') {
      if (wanted === 'no strings') return undefined
      return this.#string(schema, path, wanted === 'json' ? 'json' : 'raw')
    }
    if (wanted === 'raw strings') return undefined
    switch (type) {
      case 'object':
        return this.#object(schema, path)
      case 'array':
        return this.#array(schema, path)
      case 'number':
      case 'integer':
        return this.#number(schema, path, type === 'integer')
      case 'boolean':
        return alt(text('true'), text('false'))
      case 'null':
        return text('null')
    }
  }

  #string(schema: Schema, path: Path, quoting: Quoting): Piece | undefined {
    const least = countAt(schema, path, 'minLength', COUNT_MAX)
    const most = countAt(schema, path, 'maxLength', Number.MAX_SAFE_INTEGER)
    const { pattern, format } = schema
    // Beside a pattern a format is an annotation: Zod, for one, writes both, and the pattern is the exact one.
    const isKnown = typeof format === 'string' && Object.hasOwn(FORMATS, format)
    if (pattern === undefined && format !== undefined && !isKnown)
      throw new SchemaFault(path, 'format', `is supported as ${Object.keys(FORMATS).join(', ')}`)
    const keyword = pattern !== undefined ? 'pattern' : 'format'
    const source = pattern ?? (typeof format === 'string' ? FORMATS[format] : undefined)
    if (source !== undefined) {
      const counted = least !== undefined && least > 0 ? 'minLength' : most !== undefined ? 'maxLength' : undefined
      if (counted) throw new SchemaFault(path, counted, `is not supported beside ${keyword}`)
      if (typeof source !== 'string') throw new SchemaFault(path, keyword, 'must be a string')
      const body = patternPiece(source, quoting, this.#rules)
      if ('refused' in body) throw new SchemaFault(path, keyword, `is not supported with ${body.refused}`)
      return quoted(quoting, body.piece)
    }
    // A length beyond any context is no limit.
    const limit = most === undefined || most > COUNT_MAX ? Number.POSITIVE_INFINITY : most
    if ((least ?? 0) > limit) return undefined
    if (!least && limit === Number.POSITIVE_INFINITY) return anyString(this.#rules, quoting)
    return countedString(this.#rules, quoting, least ?? 0, limit)
  }

  #number(schema: Schema, path: Path, isInteger: boolean): Piece | undefined {
    const names = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'] as const
    const bounds: Partial<Record<(typeof names)[number], number>> = {}
    for (const name of names) {
      const value = schema[name]
      if (value === undefined) continue
      if (typeof value !== 'number') throw new SchemaFault(path, name, 'must be a number')
      bounds[name] = value
    }
    const first = names.find((name) => bounds[name] !== undefined)
    if (first === undefined) return isInteger ? anyInteger(this.#rules) : anyNumber(this.#rules)
    const piece = numberBetween(bounds, isInteger)
    if (piece === 'spelling') throw new SchemaFault(path, first, 'is supported for numbers that plain digits write')
    return piece === 'none' ? undefined : piece
  }

  #array(schema: Schema, path: Path): Piece | undefined {
    if (schema.uniqueItems === true) throw new SchemaFault(path, 'uniqueItems', 'is not supported')
    const least = countAt(schema, path, 'minItems', COUNT_MAX) ?? 0
    const most = countAt(schema, path, 'maxItems', COUNT_MAX) ?? Number.POSITIVE_INFINITY
    const tuple = Array.isArray(schema.items) ? schema.items : schema.prefixItems
    const restKey = Array.isArray(schema.items) ? 'additionalItems' : 'items'
    if (tuple !== undefined && !Array.isArray(tuple)) throw new SchemaFault(path, 'prefixItems', 'must be an array')
    const isPlain =
      tuple === undefined && schema.items === undefined && least === 0 && most === Number.POSITIVE_INFINITY
    if (isPlain) return anyArray(this.#rules)
    if (least > most) return undefined
    const rest = this.value(schema[restKey] ?? true, [...path, restKey])
    if (tuple === undefined || tuple.length === 0) {
      if (!rest) return least > 0 ? undefined : listOf(this.#rules, '[]', EMPTY, 0, 0)
      const item = this.#rules.add(() => rest)
      return this.#rules.add(() => listOf(this.#rules, '[]', item, least, most))
    }
    return this.#tuple(tuple, schema, path, rest, least, most)
  }

  /** The first items each of their own schema, in a chain of rules that may end where enough are there. */
  #tuple(
    tuple: readonly unknown[],
    schema: Schema,
    path: Path,
    rest: Piece | undefined,
    least: number,
    most: number,
  ): Piece | undefined {
    const ws = space(this.#rules)
    const key = Array.isArray(schema.items) ? 'items' : 'prefixItems'
    const comma = seq(ws, text(','), ws)
    const from = (i: number): Piece | undefined => {
      if (i >= most) return EMPTY
      if (i >= tuple.length) {
        const more =
          rest &&
          this.#rules.times(
            this.#rules.add(() => seq(comma, rest)),
            Math.max(0, least - i),
            most - i,
          )
        return more ?? (i >= least ? EMPTY : undefined)
      }
      const item = this.value(tuple[i], [...path, key, String(i)])
      const next = item && from(i + 1)
      if (!item || !next) return i >= least ? EMPTY : undefined
      const one = seq(i === 0 ? ws : comma, item, next)
      return this.#rules.add(() => (i >= least ? optional(one) : one))
    }
    const items = from(0)
    return items && seq(text('['), items, ws, text(']'))
  }

  #object(schema: Schema, path: Path): Piece | undefined {
    const { properties, required, additionalProperties } = schema
    const isOpen = properties === undefined && required === undefined && (additionalProperties ?? true) === true
    if (properties !== undefined && !isSchema(properties))
      throw new SchemaFault(path, 'properties', 'must be an object')
    const names = this.#required(schema, path)
    const fewest = countAt(schema, path, 'minProperties', COUNT_MAX) ?? 0
    if (fewest > names.size)
      throw new SchemaFault(path, 'minProperties', 'is supported up to the number of required properties')
    if (isOpen) return anyObject(this.#rules)
    const known = Object.entries(properties ?? {})
    const undeclared = [...names].filter((name) => !Object.hasOwn(properties ?? {}, name))
    // Required names without a schema of their own take the one for the others.
    const asksOthers = additionalProperties !== undefined || undeclared.length > 0
    const others = asksOthers ? this.value(additionalProperties ?? true, [...path, 'additionalProperties']) : undefined
    if (undeclared.length > 0 && !others) return undefined
    const members: Member[] = []
    for (const [name, part] of known) {
      const value = this.value(part, [...path, 'properties', name])
      const isRequired = names.has(name)
      if (!value && isRequired) return undefined
      if (value) members.push({ pair: this.#pair(name, value), isRequired })
    }
    for (const name of undeclared) if (others) members.push({ pair: this.#pair(name, others), isRequired: true })
    const taken = [...known.map(([name]) => name), ...undeclared]
    // Properties that nobody declared are written only where the schema asks for them in so many words.
    const extra =
      additionalProperties === undefined || !others ? undefined : member(this.#rules, this.#otherKey(taken), others)
    return this.#rules.add(() => this.#members(members, extra && this.#rules.add(() => extra)))
  }

  #required(schema: Schema, path: Path): ReadonlySet<string> {
    const { required } = schema
    if (required === undefined) return new Set()
    if (!Array.isArray(required) || required.some((name) => typeof name !== 'string'))
      throw new SchemaFault(path, 'required', 'must be an array of names')
    return new Set(required.map(String))
  }

  #pair(name: string, value: Piece): Piece {
    return this.#rules.add(() => member(this.#rules, text(JSON.stringify(name)), value))
  }

  #otherKey(taken: readonly string[]): Piece {
    return taken.length === 0 ? anyString(this.#rules, 'json') : otherKey(this.#rules, taken)
  }

  /** Members in their order, those not required left out at will; two chains, since a comma stands between two only. */
  #members(members: readonly Member[], extra: Piece | undefined): Piece {
    const ws = space(this.#rules)
    const more = extra && seq(ws, text(','), ws, extra)
    let first: Piece =
      extra && more ? optional(seq(ws, extra, this.#rules.times(more, 0, Number.POSITIVE_INFINITY))) : EMPTY
    let later: Piece = more ? this.#rules.times(more, 0, Number.POSITIVE_INFINITY) : EMPTY
    for (const { pair, isRequired } of members.toReversed()) {
      const [firstBehind, laterBehind] = [first, later]
      const begun = seq(ws, pair, laterBehind)
      first = this.#rules.add(() => (isRequired ? begun : alt(begun, firstBehind)))
      const one = seq(ws, text(','), ws, pair, laterBehind)
      later = this.#rules.add(() => (isRequired ? one : alt(one, laterBehind)))
    }
    return seq(text('{'), first, ws, text('}'))
  }
}

interface Member {
  readonly pair: Piece
  readonly isRequired: boolean
}
