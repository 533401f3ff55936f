// Reads the goldens: a safetensors file to named, typed rows. For tests only; the engine has its own, hardened reader.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const GOLDENS = fileURLToPath(new URL('goldens', import.meta.url))
export const MODEL_DIR = fileURLToPath(new URL('../../gpu-node/model', import.meta.url))

export const goldenNames = (): string[] =>
  readdirSync(GOLDENS, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && /^v\d/.test(entry.name))
    .map((entry) => entry.name)
    .sort()

export interface Tensor {
  readonly shape: readonly number[]
  readonly data: Float32Array | Int32Array
}

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>

export const readTensors = (path: string): Map<string, Tensor> => {
  const file = readFileSync(path)
  const bodyAt = 8 + Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.subarray(8, bodyAt).toString()) as Header
  const out = new Map<string, Tensor>()
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    const bytes = new Uint8Array(file.subarray(bodyAt + data_offsets[0], bodyAt + data_offsets[1]))
    out.set(name, { shape, data: dtype === 'I32' ? new Int32Array(bytes.buffer) : new Float32Array(bytes.buffer) })
  }
  return out
}

export const readGolden = (name: string): Map<string, Tensor> => readTensors(join(GOLDENS, name, 'golden.safetensors'))

/** Equal to the last bit. */
export const sameBits = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength))

/** Largest |a - b| / (1 + |b|): absolute near zero, relative for large values. */
export const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let worst = a.length === b.length ? 0 : Infinity
  for (let i = 0; i < b.length; i++) {
    const [x, y] = [a[i] ?? Number.NaN, b[i] ?? Number.NaN]
    const d = Math.abs(x - y) / (1 + Math.abs(y))
    if (!(d <= worst)) worst = Number.isNaN(d) ? Infinity : d
  }
  return worst
}
