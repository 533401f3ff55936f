// What becomes of every tensor, and which output file it goes to. The same checkpoint always gives the same plan, which is
// what makes a broken-off run resumable file by file.
import { codeShape, type Format, scaleShape } from './formats.ts'
import type { StoredTensor, TensorShape } from './safetensors.ts'

/** A source tensor with what it becomes: itself, or codes and multipliers. */
export interface Step {
  readonly source: StoredTensor
  readonly quantized: boolean
  readonly outputs: readonly TensorShape[]
}

export interface Shard {
  readonly name: string
  readonly steps: readonly Step[]
}

const SHARD_BYTES = 256 * 1024 * 1024

/** Kept as they are: read by rows (embedding), deciding (router, index weights), or rearranged at load (kv_b_proj). */
const KEPT =
  /embed_tokens\.weight$|mlp\.gate\.weight$|indexer\.weights_proj\.weight$|kv_b_proj\.weight$|eh_proj\.weight$|norm\.weight$/

const size = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1)

export const planTensor = (source: StoredTensor, format: Format): Step => {
  const [rows, cols] = source.shape
  const fits = source.shape.length === 2 && source.name.endsWith('.weight') && !KEPT.test(source.name)
  if (!fits || rows === undefined || cols === undefined) return { source, quantized: false, outputs: [source] }
  if (source.dtype !== 'BF16' && source.dtype !== 'F32')
    throw new Error(`${source.name}: is ${source.dtype}; quantize from a BF16 or F32 checkpoint`)
  const codes = codeShape(format, rows, cols)
  const scales = scaleShape(format, rows, cols)
  return {
    source,
    quantized: true,
    outputs: [
      {
        name: source.name,
        dtype: { int8: 'I8', int4: 'U8', fp8: 'F8_E4M3' }[format],
        shape: codes,
        bytes: size(codes),
      },
      {
        name: `${source.name}_scale${format === 'fp8' ? '_inv' : ''}`,
        dtype: format === 'fp8' ? 'F32' : 'BF16',
        shape: scales,
        bytes: size(scales) * (format === 'fp8' ? 4 : 2),
      },
    ],
  }
}

export const planShards = (tensors: readonly StoredTensor[], format: Format): Shard[] => {
  const groups: Step[][] = [[]]
  let bytes = 0
  for (const tensor of tensors) {
    const step = planTensor(tensor, format)
    const added = step.outputs.reduce((sum, output) => sum + output.bytes, 0)
    if (bytes > 0 && bytes + added > SHARD_BYTES) {
      groups.push([])
      bytes = 0
    }
    groups.at(-1)?.push(step)
    bytes += added
  }
  const pad = (n: number) => String(n).padStart(5, '0')
  return groups.map((steps, i) => ({ name: `model-${pad(i + 1)}-of-${pad(groups.length)}.safetensors`, steps }))
}
