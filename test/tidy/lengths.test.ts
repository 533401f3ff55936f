// Small files, short functions: 400 lines a file, 70 a function, 150 a kernel. A longer one gives its reason in its first
// line, as `long because ...`.
import ts from 'typescript'
import { expect, test } from 'vitest'
import { type Source, sources } from './sources.ts'

const FILE_LINES = 400
const FUNCTION_LINES = 70
const KERNEL_LINES = 150

const hasReason = (line: string | undefined): boolean => /long because \w+/.test(line ?? '')

const isTest = (path: string): boolean => path.startsWith('test/')

test('no file over 400 lines', () => {
  const all = sources('ts', 'tsx', 'mjs', 'cc', 'h', 'cu', 'cuh', 'py')
  expect(all.length).toBeGreaterThan(30)
  const long = all.filter(({ lines }) => lines.length > FILE_LINES + 1 && !hasReason(lines[0]))
  expect(long.map(({ path, lines }) => `${path}: ${lines.length}`)).toEqual([])
})

const longTypeScript = ({ path, text, lines }: Source): string[] => {
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
  const found: string[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isFunctionLike(node) && 'body' in node && node.body) {
      const start = file.getLineAndCharacterOfPosition(node.getStart()).line
      const end = file.getLineAndCharacterOfPosition(node.getEnd()).line
      if (end - start + 1 > FUNCTION_LINES && !hasReason(lines[start]))
        found.push(`${path}:${start + 1} ${end - start + 1}`)
    }
    ts.forEachChild(node, visit)
  }
  visit(file)
  return found
}

test('no TypeScript function over 70 lines', () => {
  expect(
    sources('ts', 'tsx')
      .filter((s) => !isTest(s.path))
      .flatMap(longTypeScript),
  ).toEqual([])
})

const NOT_A_FUNCTION =
  /^(?:namespace|struct|class|enum|union|extern|typedef|#|\}|\/\/|constexpr [^(]*=|const [^(]*=|static [^(]*=)/

/** clang-format puts a definition's last header line and its closing brace at the same depth: 0, or 2 in a class. */
const longCxx = ({ path, lines }: Source): string[] => {
  const limit = path.includes('/kernels/') ? KERNEL_LINES : FUNCTION_LINES
  const found: string[] = []
  for (const indent of ['', '  ']) {
    for (let i = 0; i < lines.length; i++) {
      const line = lines[i] ?? ''
      if (!line.startsWith(indent) || /^\s/.test(line.slice(indent.length)) || !/\)[^=;]*\{$/.test(line)) continue
      if (NOT_A_FUNCTION.test(line.slice(indent.length)) || /^\s*(?:if|for|while|switch|else|do)\b/.test(line)) continue
      let end = i + 1
      while (end < lines.length && !(lines[end] ?? '').startsWith(`${indent}}`)) end++
      if (end - i + 1 > limit && !hasReason(lines[i + 1])) found.push(`${path}:${i + 1} ${end - i + 1}`)
    }
  }
  return found
}

test('no C++ function over 70 lines, no kernel over 150', () => {
  expect(sources('cc', 'h', 'cu', 'cuh').flatMap(longCxx)).toEqual([])
})
