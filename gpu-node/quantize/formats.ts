// One weight (rows, cols) to codes and multipliers. `value ~ code * scale`.
//   int8  NAME I8 (rows, cols), NAME_scale BF16 (rows, ceil(cols / group)): scale = amax / 127
//   int4  NAME U8 (rows, ceil(cols / 2)), even column in the low four bits, code + 8; NAME_scale as above
//   fp8   NAME F8_E4M3 (rows, cols), NAME_scale_inv F32 (ceil(rows / 128), ceil(cols / 128)): scale = amax / 448
import { roundBf16, toBf16, toE4m3 } from './numbers.ts'

export const FORMATS = ['int8', 'int4', 'fp8'] as const
export type Format = (typeof FORMATS)[number]

/** Columns that share a multiplier. */
export const GROUP: Readonly<Record<Format, number>> = { int8: 128, int4: 32, fp8: 128 }
const BLOCK = 128

export interface Quantized {
  readonly dtype: 'I8' | 'U8' | 'F8_E4M3'
  readonly codes: Uint8Array
  /** As stored: BF16 for int8 and int4, F32 for fp8. */
  readonly scales: Uint8Array
}

export const codeShape = (format: Format, rows: number, cols: number): number[] =>
  format === 'int4' ? [rows, Math.ceil(cols / 2)] : [rows, cols]

export const scaleShape = (format: Format, rows: number, cols: number): number[] =>
  format === 'fp8' ? [Math.ceil(rows / BLOCK), Math.ceil(cols / BLOCK)] : [rows, Math.ceil(cols / GROUP[format])]

const largest = (w: Float32Array, from: number, to: number): number => {
  let most = 0
  for (let i = from; i < to; i++) {
    const size = Math.abs(w[i] as number)
    if (size > most) most = size
  }
  return most
}

const int8 = (w: Float32Array, rows: number, cols: number): Quantized => {
  const codes = new Int8Array(rows * cols)
  const groups = Math.ceil(cols / GROUP.int8)
  const scales = new Float32Array(rows * groups)
  for (let r = 0; r < rows; r++) {
    for (let g = 0; g < groups; g++) {
      const from = r * cols + g * GROUP.int8
      const to = Math.min(from + GROUP.int8, (r + 1) * cols)
      const scale = roundBf16(largest(w, from, to) / 127)
      scales[r * groups + g] = scale
      if (scale === 0) continue
      for (let i = from; i < to; i++) codes[i] = Math.max(-127, Math.min(127, Math.round((w[i] as number) / scale)))
    }
  }
  return { dtype: 'I8', codes: new Uint8Array(codes.buffer), scales: toBf16(scales) }
}

const nibble = (value: number, inverse: number): number => Math.max(-8, Math.min(7, Math.round(value * inverse)))

/** The multiplier of least squared error among a few near amax / 8, with either sign: the code range is -8 .. 7. */
const bestInt4Scale = (w: Float32Array, from: number, to: number): number => {
  let signed = 0
  for (let i = from; i < to; i++) if (Math.abs(w[i] as number) > Math.abs(signed)) signed = w[i] as number
  let best = 0
  let least = Number.POSITIVE_INFINITY
  for (let candidate = 6.5; candidate <= 8.75; candidate += 0.25) {
    const scale = roundBf16(-signed / candidate)
    if (scale === 0) return 0
    let error = 0
    for (let i = from; i < to; i++) {
      const value = w[i] as number
      error += (value - nibble(value, 1 / scale) * scale) ** 2
    }
    if (error < least) [best, least] = [scale, error]
  }
  return best
}

const int4 = (w: Float32Array, rows: number, cols: number): Quantized => {
  const stride = Math.ceil(cols / 2)
  const codes = new Uint8Array(rows * stride).fill(0x88)
  const groups = Math.ceil(cols / GROUP.int4)
  const scales = new Float32Array(rows * groups)
  for (let r = 0; r < rows; r++) {
    for (let g = 0; g < groups; g++) {
      const begin = g * GROUP.int4
      const end = Math.min(begin + GROUP.int4, cols)
      const scale = bestInt4Scale(w, r * cols + begin, r * cols + end)
      scales[r * groups + g] = scale
      if (scale === 0) continue
      for (let c = begin; c < end; c++) {
        const code = nibble(w[r * cols + c] as number, 1 / scale) + 8
        const at = r * stride + (c >> 1)
        codes[at] = c % 2 === 0 ? ((codes[at] as number) & 0xf0) | code : ((codes[at] as number) & 0x0f) | (code << 4)
      }
    }
  }
  return { dtype: 'U8', codes, scales: toBf16(scales) }
}

const fp8 = (w: Float32Array, rows: number, cols: number): Quantized => {
  const codes = new Uint8Array(rows * cols)
  const [high, wide] = [Math.ceil(rows / BLOCK), Math.ceil(cols / BLOCK)]
  const scales = new Float32Array(high * wide)
  for (let b = 0; b < high; b++) {
    for (let g = 0; g < wide; g++) {
      const [rowEnd, begin, end] = [Math.min(rows, (b + 1) * BLOCK), g * BLOCK, Math.min(cols, (g + 1) * BLOCK)]
      let most = 0
      for (let r = b * BLOCK; r < rowEnd; r++) most = Math.max(most, largest(w, r * cols + begin, r * cols + end))
      const scale = Math.fround(most / 448)
      scales[b * wide + g] = scale
      if (scale === 0) continue
      for (let r = b * BLOCK; r < rowEnd; r++) {
        for (let c = begin; c < end; c++) codes[r * cols + c] = toE4m3((w[r * cols + c] as number) / scale)
      }
    }
  }
  return { dtype: 'F8_E4M3', codes, scales: new Uint8Array(scales.buffer) }
}

const QUANTIZERS: Readonly<Record<Format, (w: Float32Array, rows: number, cols: number) => Quantized>> = {
  int8,
  int4,
  fp8,
}

export const quantize = (format: Format, w: Float32Array, rows: number, cols: number): Quantized =>
  QUANTIZERS[format](w, rows, cols)
