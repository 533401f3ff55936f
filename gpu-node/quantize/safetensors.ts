// Safetensors files: an 8-byte header length, a JSON header of tensors, their bytes. Read tensor by tensor, so that a
// checkpoint larger than memory passes through.
import { closeSync, existsSync, fsyncSync, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.number().int().nonnegative()),
  data_offsets: z.tuple([z.number().int().nonnegative(), z.number().int().nonnegative()]),
})

export interface StoredTensor {
  readonly name: string
  readonly dtype: string
  readonly shape: readonly number[]
  readonly bytes: number
  readonly file: string
  readonly offset: number
}

const readHeader = (file: string): StoredTensor[] => {
  const fd = openSync(file, 'r')
  try {
    const prefix = Buffer.alloc(8)
    if (readSync(fd, prefix, 0, 8, 0) < 8) throw new Error(`${file}: is no safetensors file`)
    const length = Number(prefix.readBigUInt64LE())
    if (length > 100_000_000) throw new Error(`${file}: its header is too long`)
    const header = Buffer.alloc(length)
    readSync(fd, header, 0, length, 8)
    const { __metadata__: _, ...tensors } = z.record(z.string(), z.unknown()).parse(JSON.parse(header.toString('utf8')))
    return Object.entries(tensors).map(([name, value]) => {
      const { dtype, shape, data_offsets } = entrySchema.parse(value)
      return {
        name,
        dtype,
        shape,
        bytes: data_offsets[1] - data_offsets[0],
        file,
        offset: 8 + length + data_offsets[0],
      }
    })
  } finally {
    closeSync(fd)
  }
}

/** Every tensor of a checkpoint, ordered by file and place. */
export const listTensors = (dir: string): StoredTensor[] => {
  const index = join(dir, 'model.safetensors.index.json')
  const files = existsSync(index)
    ? [
        ...new Set(
          Object.values(
            z.object({ weight_map: z.record(z.string(), z.string()) }).parse(JSON.parse(readFileSync(index, 'utf8')))
              .weight_map,
          ),
        ),
      ].sort()
    : readdirSync(dir).filter((name) => name === 'model.safetensors')
  if (files.length === 0) throw new Error(`${dir}: holds no model.safetensors and no model.safetensors.index.json`)
  return files.flatMap((name) => readHeader(join(dir, name)).sort((a, b) => a.offset - b.offset))
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
