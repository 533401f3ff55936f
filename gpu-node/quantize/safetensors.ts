// Safetensors files: an 8-byte header length, a JSON header of tensors, their bytes. Read tensor by tensor, so that a
// checkpoint larger than memory passes through.
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { parseJson } from './json_file.ts'

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.number().int().nonnegative()),
  data_offsets: z.tuple([z.number().int().nonnegative(), z.number().int().nonnegative()]),
})
/** `__metadata__` is no tensor. */
const headerSchema = z.record(z.string(), z.unknown()).transform(({ __metadata__: _, ...tensors }) => tensors)
const tensorsSchema = headerSchema.pipe(z.record(z.string(), entrySchema))
const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) })

/** Bytes of an element, as the engine knows them. */
const WIDTHS: Readonly<Record<string, number>> = {
  ...{ I64: 8, U64: 8, F64: 8, I32: 4, U32: 4, F32: 4, I16: 2, U16: 2, F16: 2, BF16: 2 },
  ...{ I8: 1, U8: 1, BOOL: 1, F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1 },
}

export interface StoredTensor {
  readonly name: string
  readonly dtype: string
  readonly shape: readonly number[]
  readonly bytes: number
  readonly file: string
  readonly offset: number
}

/** What the engine would refuse must not come out as a whole checkpoint. */
const checkTensors = (file: string, size: number, tensors: readonly StoredTensor[]): void => {
  let end = 0
  for (const { name, dtype, shape, bytes, offset } of tensors) {
    const width = WIDTHS[dtype]
    const needed = shape.reduce((product, n) => product * n, width ?? 0)
    const wrong =
      width === undefined
        ? `unknown dtype '${dtype}'`
        : bytes !== needed
          ? `${bytes} bytes stored, shape and dtype need ${needed}`
          : offset + bytes > size
            ? 'its data_offsets lie outside the file (truncated?)'
            : bytes > 0 && offset < end
              ? 'its data overlaps that of another tensor'
              : undefined
    if (wrong) throw new Error(`${file}: ${name}: ${wrong}`)
    end = Math.max(end, offset + bytes)
  }
}

/** In order of place. */
const readHeader = (file: string): StoredTensor[] => {
  const fd = openSync(file, 'r')
  try {
    const prefix = Buffer.alloc(8)
    if (readSync(fd, prefix, 0, 8, 0) < 8) throw new Error(`${file}: is no safetensors file`)
    const length = Number(prefix.readBigUInt64LE())
    if (length > 100_000_000) throw new Error(`${file}: its header is too long`)
    const header = Buffer.alloc(length)
    const got = readSync(fd, header, 0, length, 8)
    if (got < length) throw new Error(`${file}: ends inside its header`)
    const tensors = Object.entries(parseJson(file, tensorsSchema, header.toString('utf8')))
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [begin, end],
          },
        ]) => {
          return { name, dtype, shape, bytes: end - begin, file, offset: 8 + length + begin }
        },
      )
      .sort((a, b) => a.offset - b.offset)
    checkTensors(file, fstatSync(fd).size, tensors)
    return tensors
  } finally {
    closeSync(fd)
  }
}

/** Every tensor of a checkpoint, ordered by file and place. */
export const listTensors = (dir: string): StoredTensor[] => {
  const index = join(dir, 'model.safetensors.index.json')
  const map = existsSync(index) ? parseJson(index, indexSchema, readFileSync(index, 'utf8')).weight_map : undefined
  const files = map
    ? [...new Set(Object.values(map))].sort()
    : readdirSync(dir).filter((name) => name === 'model.safetensors')
  if (files.length === 0) throw new Error(`${dir}: holds no model.safetensors and no model.safetensors.index.json`)
  const tensors = files.flatMap((name) => readHeader(join(dir, name)))
  const names = new Set(tensors.map(({ name }) => name))
  const missing = Object.keys(map ?? {}).find((name) => !names.has(name))
  if (missing !== undefined) throw new Error(`${index}: names ${missing}, which none of its files holds`)
  return tensors
}

export const readTensor = (tensor: StoredTensor): Uint8Array => {
  const out = new Uint8Array(tensor.bytes)
  const fd = openSync(tensor.file, 'r')
  try {
    for (let at = 0; at < out.length; ) {
      const got = readSync(fd, out, at, Math.min(out.length - at, 1 << 30), tensor.offset + at)
      if (got === 0) throw new Error(`${tensor.file}: ends inside ${tensor.name}`)
      at += got
    }
  } finally {
    closeSync(fd)
  }
  return out
}

export interface TensorShape {
  readonly name: string
  readonly dtype: string
  readonly shape: readonly number[]
  readonly bytes: number
}

/** Writes the header, then takes each tensor's bytes in order. */
export const writeSafetensors = (
  path: string,
  tensors: readonly TensorShape[],
  data: (index: number) => Uint8Array,
): void => {
  let at = 0
  const entries = tensors.map(({ name, dtype, shape, bytes }) => {
    const begin = at
    at += bytes
    return [name, { dtype, shape, data_offsets: [begin, at] }] as const
  })
  const json = JSON.stringify({ __metadata__: { format: 'pt' }, ...Object.fromEntries(entries) })
  const header = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8))
  const fd = openSync(path, 'w')
  try {
    const prefix = Buffer.alloc(8)
    prefix.writeBigUInt64LE(BigInt(header.length))
    writeSync(fd, prefix)
    writeSync(fd, header)
    for (const [i, tensor] of tensors.entries()) {
      const bytes = data(i)
      if (bytes.length !== tensor.bytes)
        throw new Error(`${tensor.name}: has ${bytes.length} bytes, planned ${tensor.bytes}`)
      for (let done = 0; done < bytes.length; )
        done += writeSync(fd, bytes, done, Math.min(bytes.length - done, 1 << 30))
    }
    // The name that says it is whole comes after its bytes, also on a machine that loses power.
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
