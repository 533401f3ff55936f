// The platform's storage over node:sqlite and files, as far as the edge's code uses it: an object's SQLite, D1, R2. The SQL that runs
// is the edge's own; what is added is the place where a fault can happen.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { type Faults, turns } from './faults.ts'

const LAX = 'PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF'

export const openDatabase = (file: string): DatabaseSync => {
  const database = new DatabaseSync(file)
  database.exec(LAX)
  return database
}

const preparer = (database: DatabaseSync): ((query: string) => StatementSync) => {
  // Each text is one statement; an object runs some forty of them.
  const known = new Map<string, StatementSync>()
  return (query) => {
    const found = known.get(query) ?? database.prepare(query)
    known.set(query, found)
    return found
  }
}

const hasSeveral = (query: string): boolean => /;\s*\S/.test(query)

/** An account object's storage: `sql.exec`, `transactionSync`, and one alarm. It outlives the object, as in workerd. */
export const objectStorage = (faults: Faults) => {
  const database = openDatabase(':memory:')
  const prepare = preparer(database)
  let alarm: number | null = null
  const exec = (query: string, ...values: SQLInputValue[]) => {
    if (hasSeveral(query)) database.exec(query)
    const rows = hasSeveral(query) ? [] : prepare(query).all(...values)
    return { toArray: () => rows, one: () => rows[0], [Symbol.iterator]: () => rows[Symbol.iterator]() }
  }
  const transactionSync = <T>(work: () => T): T => {
    faults.throwIf('object_restarted_between_writes')
    database.exec('BEGIN')
    try {
      const value = work()
      database.exec('COMMIT')
      return value
    } catch (error) {
      database.exec('ROLLBACK')
      throw error
    }
  }
  const storage = {
    ...{ sql: { exec }, transactionSync },
    getAlarm: async () => alarm,
    setAlarm: async (time: number) => {
      alarm = time
    },
  }
  return {
    storage: storage as unknown as DurableObjectStorage,
    get alarm() {
      return alarm
    },
    clearAlarm: () => {
      alarm = null
    },
  }
}
export type ObjectStorage = ReturnType<typeof objectStorage>

class Statement {
  readonly #statement: StatementSync
  readonly #values: readonly SQLInputValue[]
  readonly #faults: Faults

  constructor(statement: StatementSync, faults: Faults, values: readonly SQLInputValue[] = []) {
    this.#statement = statement
    this.#faults = faults
    this.#values = values
  }

  bind(...values: SQLInputValue[]): Statement {
    return new Statement(this.#statement, this.#faults, values)
  }

  now(): { success: true; results: Record<string, unknown>[] } {
    return { success: true, results: this.#statement.all(...this.#values) }
  }

  async all(): Promise<ReturnType<Statement['now']>> {
    await turns(1)
    this.#faults.throwIf('d1_failed')
    const answer = this.now()
    this.#faults.throwIf('d1_answer_lost')
    return answer
  }

  run(): Promise<ReturnType<Statement['now']>> {
    return this.all()
  }

  async raw(): Promise<unknown[][]> {
    return (await this.all()).results.map((row) => Object.values(row))
  }
}

/** D1: a batch is one transaction; its answer may be lost after the commit. */
export const d1 = (database: DatabaseSync, faults: Faults): D1Database => {
  const prepareSync = preparer(database)
  const batch = async (statements: readonly Statement[]) => {
    await turns(1)
    faults.throwIf('d1_failed')
    database.exec('BEGIN')
    try {
      const answers = statements.map((statement, i) => {
        if (i > 0) faults.throwIf('d1_batch_half_done')
        return statement.now()
      })
      database.exec('COMMIT')
      faults.throwIf('d1_answer_lost')
      return answers
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK')
      throw error
    }
  }
  const prepare = (query: string): Statement => new Statement(prepareSync(query), faults)
  return { prepare, batch } as unknown as D1Database
}

/** R2: files under `root`, written under the caller's condition. */
export const r2 = (root: string, faults: Faults): R2Bucket => {
  const etagOf = (text: string): string => createHash('md5').update(text).digest('hex')
  const put = async (key: string, text: string, { onlyIf }: { onlyIf: R2Conditional }) => {
    await turns(1)
    faults.throwIf('r2_failed')
    const file = join(root, key)
    if (onlyIf.etagDoesNotMatch === '*' && existsSync(file)) return null
    if (onlyIf.etagMatches && onlyIf.etagMatches !== etagOf(readFileSync(file, 'utf8'))) return null
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text)
    faults.throwIf('r2_answer_lost')
    return { key }
  }
  const get = async (key: string) => {
    await turns(1)
    const text = readFileSync(join(root, key), 'utf8')
    return { etag: etagOf(text), json: async (): Promise<unknown> => JSON.parse(text) }
  }
  return { put, get } as unknown as R2Bucket
}
