// What a token costs at least: operations and bytes from the checkpoint's own shapes (reference: performance notes, 1.4).
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { listTensors } from '../../gpu-node/quantize/safetensors.ts'

const count = z.number().int().nonnegative()
const configSchema = z.object({
  hidden_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  kv_lora_rank: count,
  qk_rope_head_dim: count,
  n_routed_experts: count.default(0),
  num_experts_per_tok: count.default(0),
  index_n_heads: count.default(0),
  index_head_dim: count.default(0),
  index_topk: count.default(0),
})
type Config = z.infer<typeof configSchema>

export interface Roofline {
  /** Operations of one prefilled token that sees `keys` keys; the head counts for nothing. */
  readonly prefillFlops: (keys: number) => number
  /** Operations of one decoded token that sees `keys` keys. */
  readonly decodeFlops: (keys: number) => number
  /** Bytes of a step that decodes one token of each of `batch` sequences with `keys` keys. */
  readonly stepBytes: (keys: number, batch: number) => number
}

interface Sums {
  /** Elements and bytes: read every step; of all routed experts; of the output head. */
  readonly fixed: readonly [number, number]
  readonly experts: readonly [number, number]
  readonly head: readonly [number, number]
}

const isExpert = (name: string): boolean => name.includes('.mlp.experts.')
const isHead = (name: string, tied: boolean): boolean => name.startsWith(tied ? 'model.embed_tokens.' : 'lm_head.')

const sumTensors = (dir: string): Sums => {
  const tensors = listTensors(dir)
  const tied = !tensors.some(({ name }) => name.startsWith('lm_head.'))
  const total = (chosen: (name: string) => boolean): readonly [number, number] => {
    let [elements, bytes] = [0, 0]
    for (const { name, dtype, shape, bytes: size } of tensors.filter((tensor) => chosen(tensor.name))) {
      bytes += size
      if (shape.length === 2 && !name.includes('_scale'))
        elements += (shape[0] as number) * (shape[1] as number) * (dtype === 'U8' ? 2 : 1)
    }
    return [elements, bytes]
  }
  return {
    experts: total(isExpert),
    head: total((name) => isHead(name, tied)),
    fixed: total((name) => !isExpert(name) && !isHead(name, tied) && !name.startsWith('model.embed_tokens.')),
  }
}

/** Bytes a KV row and an index key take in the BF16 backend. */
const rowBytes = (c: Config): readonly [number, number] => [
  2 * Math.ceil((c.kv_lora_rank + c.qk_rope_head_dim) / 32) * 32,
  c.index_head_dim ? c.index_head_dim + 4 : 0,
]

export const roofline = (dir: string): Roofline => {
  const c = configSchema.parse(JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')))
  const sums = sumTensors(dir)
  const share = c.n_routed_experts ? c.num_experts_per_tok / c.n_routed_experts : 0
  const sparse = (keys: number): boolean => c.index_topk > 0 && keys > c.index_topk
  const attention = (keys: number): number => {
    const attended = sparse(keys) ? c.index_topk : keys
    const index = sparse(keys) ? 2 * c.index_n_heads * (c.index_head_dim + 1) * keys : 0
    return (
      c.num_hidden_layers * (2 * c.num_attention_heads * attended * (2 * c.kv_lora_rank + c.qk_rope_head_dim) + index)
    )
  }
  const linear = 2 * (sums.fixed[0] + share * sums.experts[0])
  const [row, key] = rowBytes(c)
  return {
    prefillFlops: (keys) => linear + attention(keys),
    decodeFlops: (keys) => linear + 2 * sums.head[0] + attention(keys),
    stepBytes: (keys, batch) => {
      const distinct = share ? 1 - (1 - share) ** batch : 0
      const cache = c.num_hidden_layers * ((sparse(keys) ? c.index_topk : keys) * row + (sparse(keys) ? keys * key : 0))
      return sums.fixed[1] + sums.head[1] + distinct * sums.experts[1] + batch * cache
    },
  }
}

/** What a machine allows of a model, in tokens a second. */
export interface Ceilings {
  /** Of tokens that see `keys` keys, by operations. */
  readonly prefill: (keys: number) => number
  /** Of `batch` sequences with `keys` keys each, by bytes or operations, whichever is slower. */
  readonly decode: (keys: number, batch: number) => number
}

export const ceilings = (roof: Roofline, limits: { readBytes: number; bf16Flops: number }): Ceilings => ({
  prefill: (keys) => limits.bf16Flops / roof.prefillFlops(keys),
  decode: (keys, batch) =>
    batch /
    Math.max(roof.stepBytes(keys, batch) / limits.readBytes, (batch * roof.decodeFlops(keys)) / limits.bf16Flops),
})
