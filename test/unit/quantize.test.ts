// Number formats of the quantizer, each against its definition.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { FORMATS, GROUP, quantize } from '../../gpu-node/quantize/formats.ts'
import { E4M3, roundBf16, toBf16, toE4m3, toFloats } from '../../gpu-node/quantize/numbers.ts'

const nearestE4m3 = (size: number): number => {
  let best = 0
  for (const [code, value] of E4M3.entries()) {
    const [now, then] = [Math.abs(value - size), Math.abs((E4M3[best] as number) - size)]
    if (now < then || (now === then && code % 2 === 0)) best = code
  }
  return best
}

test('every E4M3 code comes back, and every other number goes to the nearest, ties to even', () => {
  for (const [code, value] of E4M3.entries()) {
    expect(toE4m3(value)).toBe(code)
    expect(toE4m3(-value) & 0x7f).toBe(code)
  }
  for (let code = 0; code < 126; code++) {
    const middle = ((E4M3[code] as number) + (E4M3[code + 1] as number)) / 2
    expect(toE4m3(middle), String(middle)).toBe(nearestE4m3(middle))
  }
  fc.assert(
    fc.property(fc.double({ min: 0, max: 448, noNaN: true }), (size) => toE4m3(size) === nearestE4m3(size)),
    { numRuns: 2000 },
  )
  expect([toE4m3(1e9), toE4m3(-1e9)]).toEqual([126, 0x80 | 126])
})

test('BF16 rounds to nearest, ties to even', () => {
  expect(roundBf16(1 + 2 ** -8)).toBe(1)
  expect(roundBf16(1 + 3 * 2 ** -8)).toBe(1 + 2 ** -6)
  expect(roundBf16(-Math.PI)).toBe(-3.140625)
  expect(Array.from(toFloats('BF16', toBf16(Float32Array.of(1.5, -2))))).toEqual([1.5, -2])
})

test.each(FORMATS)('%s: the error of a weight stays within half a step of its group', (format) => {
  const [rows, cols] = [130, 150]
  const w = Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i * i) * (1 + (i % 7)))
  const { codes, scales } = quantize(format, w, rows, cols)
  const scale = format === 'fp8' ? new Float32Array(scales.buffer) : toFloats('BF16', scales)
  const groups = Math.ceil(cols / GROUP[format])
  let worst = 0
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const s = scale[(format === 'fp8' ? r >> 7 : r) * groups + Math.floor(c / GROUP[format])] as number
      const byte = codes[format === 'int4' ? r * Math.ceil(cols / 2) + (c >> 1) : r * cols + c] as number
      const code = {
        int8: () => (byte << 24) >> 24,
        int4: () => ((byte >> ((c % 2) * 4)) & 15) - 8,
        fp8: () => (byte & 0x80 ? -1 : 1) * (E4M3[byte & 0x7f] as number),
      }[format]()
      const step = format === 'fp8' ? Math.max(Math.abs(code) / 8, 2 ** -9) : 1
      worst = Math.max(worst, Math.abs((w[r * cols + c] as number) / s - code) / step)
    }
  }
  // int4 may clip the largest value of a group when that lowers the group's error.
  expect(worst).toBeLessThan(format === 'int4' ? 2 : 0.51)
})

test('rows of zeros stay zeros', () => {
  for (const format of FORMATS) {
    const { codes, scales } = quantize(format, new Float32Array(64), 2, 32)
    expect(codes.every((code) => code === (format === 'int4' ? 0x88 : 0))).toBe(true)
    expect(scales.every((byte) => byte === 0)).toBe(true)
  }
})
