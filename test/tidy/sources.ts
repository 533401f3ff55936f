// The source files that the tidy tests look at: what git tracks or would track, read once.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export interface Source {
  /** Path from the repository's root, with forward slashes. */
  readonly path: string
  readonly text: string
  readonly lines: readonly string[]
}

export const trackedPaths = (): string[] =>
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: ROOT, encoding: 'utf8' })
    .split('\n')
    .filter((path) => path !== '' && existsSync(join(ROOT, path)))

const isGenerated = (path: string): boolean => /\.d\.ts$|^schema\/migrations\//.test(path)

/** Source files whose name ends in one of `extensions`. */
export const sources = (...extensions: string[]): Source[] =>
  trackedPaths()
    .filter((path) => extensions.some((extension) => path.endsWith(`.${extension}`)) && !isGenerated(path))
    .map((path) => {
      const text = readFileSync(join(ROOT, path), 'utf8')
      return { path, text, lines: text.split('\n') }
    })
