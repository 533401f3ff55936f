// What the built addon must not do to its host: leak instruction-set code into shared symbols, or touch denormals.
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ROOT } from './sources.ts'

const BUILD = join(ROOT, 'gpu-node', 'build')

const OBJECTS = join(BUILD, 'CMakeFiles')

/** Those of the addon; sanitizer builds lie beside CMakeFiles. */
const isaObjects = (): string[] =>
  readdirSync(OBJECTS, { recursive: true, encoding: 'utf8' })
    .filter((name) =>
      /_(?:avx2|avx512\w*|ni)\.cc\.o$|\/bf16\/(?:a\w+\/\w+|gemm|codes|elementwise|attend|expand|rows|index|topk|limits)\.cc\.o$/.test(
        name,
      ),
    )
    .map((name) => join(OBJECTS, name))

// A weak symbol in such an object may be the copy the linker keeps for the whole program: an illegal instruction elsewhere.
test('instruction-set objects have no weak symbols', () => {
  const objects = isaObjects()
  expect(objects.length).toBeGreaterThan(1)
  for (const object of objects) {
    const weak = execFileSync('nm', ['-C', object], { encoding: 'utf8' })
      .split('\n')
      .filter((line) => /^[0-9a-f]* *[WVu] /.test(line))
    expect(weak, object).toEqual([])
  }
})

test('loading the addon leaves denormals alone', () => {
  createRequire(import.meta.url)(join(BUILD, 'sparrow.node'))
  const tiny = Number.MIN_VALUE
  expect(tiny * 1).toBeGreaterThan(0)
  expect(new Float64Array([tiny, 1]).map((x) => x / 1)[0]).toBeGreaterThan(0)
})
