// Stored numbers to fp32 and back: BF16, E4M3, int8, int4.

/** BF16 or F32 bytes as fp32. */
export const toFloats = (dtype: 'BF16' | 'F32', bytes: Uint8Array): Float32Array => {
  if (dtype === 'F32') return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  const half = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
  const out = new Uint32Array(half.length)
  for (let i = 0; i < half.length; i++) out[i] = (half[i] as number) << 16
  return new Float32Array(out.buffer)
}

const bits = new DataView(new ArrayBuffer(4))

/** The nearest BF16, ties to even. */
export const roundBf16 = (x: number): number => {
  bits.setFloat32(0, x)
  const wide = bits.getUint32(0)
  bits.setUint32(0, (wide + 0x7fff + ((wide >>> 16) & 1)) & 0xffff0000)
  return bits.getFloat32(0)
}

/** Bytes of values that are BF16 already. */
export const toBf16 = (values: Float32Array): Uint8Array => {
  const wide = new Uint32Array(values.buffer, values.byteOffset, values.length)
  return new Uint8Array(Uint16Array.from(wide, (value) => value >>> 16).buffer)
}

/** The 127 finite magnitudes of OCP E4M3, ascending: subnormals m * 2^-9, then (1 + m/8) * 2^(e-7); the largest is 448. */
export const E4M3: Float32Array = Float32Array.from({ length: 127 }, (_, code) =>
  code < 8 ? code * 2 ** -9 : (1 + (code & 7) / 8) * 2 ** ((code >> 3) - 7),
)

/** Code of the nearest magnitude of `x`, ties to even, saturating at 448; the sign goes to bit 7. */
export const toE4m3 = (x: number): number => {
  const size = Math.abs(x)
  const sign = x < 0 ? 0x80 : 0
  if (size >= 448) return sign | 126
  const exponent = size < 2 ** -6 ? -6 : Math.floor(Math.log2(size))
  const step = 2 ** (exponent - 3)
  const scaled = size / step
  let whole = Math.floor(scaled)
  const rest = scaled - whole
  if (rest > 0.5 || (rest === 0.5 && whole % 2 === 1)) whole++
  // whole is 8 .. 16 for normal values: 16 carries into the next exponent by itself.
  return sign | (size < 2 ** -6 ? whole : (exponent + 6) * 8 + whole)
}
