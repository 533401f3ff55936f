// A small file that is there whole or not at all, whatever ends its writer: a full disk leaves a file without its text.
import { renameSync, writeFileSync } from 'node:fs'

/** Readable by its owner only. */
export const writeWhole = (file: string, text: string): void => {
  writeFileSync(`${file}.part`, text, { mode: 0o600, flush: true })
  renameSync(`${file}.part`, file)
}
