// Reads names from a safetensors file and rewrites it in place: what tests damage checkpoints with.
import { readFileSync, writeFileSync } from 'node:fs'

export type Header = Record<string, { dtype: string; shape: number[]; data_offsets: number[] }>

export const readTensorFile = (path: string): { header: Header; body: Buffer } => {
  const bytes = readFileSync(path)
  const bodyAt = 8 + Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.subarray(8, bodyAt).toString()) as Header
  return { header, body: Buffer.from(bytes.subarray(bodyAt)) }
}

export const tensorNames = (path: string): string[] => Object.keys(readTensorFile(path).header)

/** `change` edits header and body; a body that it returns takes the old one's place. */
export const editTensors = (path: string, change: (header: Header, body: Buffer) => Buffer | undefined): void => {
  const { header, body } = readTensorFile(path)
  const changed = change(header, body) ?? body
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path, Buffer.concat([length, text, changed]))
}

export const entryOf = (header: Header, name: string): Header[string] => {
  const found = header[name]
  if (!found) throw new Error(`the file has no ${name}`)
  return found
}
