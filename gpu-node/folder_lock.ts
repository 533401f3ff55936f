// One process a folder: a lock that the kernel holds for its holder, through SQLite since Node has no such call. It goes with the
// process, however that ends, and is seen from other containers on the same machine, whose process numbers and sockets are their own.
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

const SQLITE_BUSY = 5

/** A lock whose database was collected would be none. */
const held = new Set<DatabaseSync>()

/** `undefined` while another has it. Throws where the folder takes no file. */
export const lockFolder = (dir: string): { release(): void } | undefined => {
  const database = new DatabaseSync(join(dir, 'lock'))
  try {
    // Its journal would be a second file, which a full disk has no room for.
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
  } catch (error) {
    database.close()
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) return undefined
    throw error
  }
  held.add(database)
  return {
    release: () => {
      if (held.delete(database)) database.close()
    },
  }
}
