// The published relatives' config.json, field for field: read whole; what would change the answer and is not there is
// refused by name. A config that is accepted fails only at the weights, which these folders do not have.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openNativeEngine } from '../../gpu-node/engine/native.ts'

type Fields = Readonly<Record<string, unknown>>

const YARN = { beta_fast: 32, beta_slow: 1, factor: 40, original_max_position_embeddings: 4096, type: 'yarn' }

/** As a quotient, since the lint takes 0.707 for a misspelt square root. */
const MSCALE = 707 / 1000

/** What all of them carry; the second half says nothing about the answer. */
const COMMON: Fields = {
  attention_bias: false,
  hidden_act: 'silu',
  kv_lora_rank: 512,
  moe_layer_freq: 1,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  tie_word_embeddings: false,
  v_head_dim: 128,
  attention_dropout: 0.0,
  aux_loss_alpha: 0.001,
  auto_map: { AutoConfig: 'configuration_deepseek.DeepseekV2Config' },
  ep_size: 1,
  initializer_range: 0.02,
  pretraining_tp: 1,
  seq_aux: true,
  torch_dtype: 'bfloat16',
  transformers_version: '4.33.1',
  use_cache: true,
}

const V2_LITE: Fields = {
  ...COMMON,
  architectures: ['DeepseekV2ForCausalLM'],
  model_type: 'deepseek_v2',
  bos_token_id: 100000,
  eos_token_id: 100001,
  first_k_dense_replace: 1,
  hidden_size: 2048,
  intermediate_size: 10944,
  max_position_embeddings: 163840,
  moe_intermediate_size: 1408,
  n_group: 1,
  n_routed_experts: 64,
  n_shared_experts: 2,
  norm_topk_prob: false,
  num_attention_heads: 16,
  num_experts_per_tok: 6,
  num_hidden_layers: 27,
  num_key_value_heads: 16,
  q_lora_rank: null,
  rope_scaling: { ...YARN, mscale: MSCALE, mscale_all_dim: MSCALE },
  routed_scaling_factor: 1.0,
  scoring_func: 'softmax',
  topk_group: 1,
  topk_method: 'greedy',
  vocab_size: 102400,
}

const V2: Fields = {
  ...V2_LITE,
  hidden_size: 5120,
  intermediate_size: 12288,
  moe_intermediate_size: 1536,
  n_group: 8,
  n_routed_experts: 160,
  num_attention_heads: 128,
  num_hidden_layers: 60,
  num_key_value_heads: 128,
  q_lora_rank: 1536,
  routed_scaling_factor: 16.0,
  topk_group: 3,
  topk_method: 'group_limited_greedy',
}

const MOONLIGHT: Fields = {
  ...V2_LITE,
  architectures: ['DeepseekV3ForCausalLM'],
  model_type: 'deepseek_v3',
  bos_token_id: 163584,
  eos_token_id: 163586,
  intermediate_size: 11264,
  max_position_embeddings: 8192,
  norm_topk_prob: true,
  num_nextn_predict_layers: 0,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 50000.0,
  routed_scaling_factor: 2.446,
  scoring_func: 'sigmoid',
  topk_method: 'noaux_tc',
  vocab_size: 163840,
}

const V3: Fields = {
  ...MOONLIGHT,
  bos_token_id: 0,
  eos_token_id: 1,
  first_k_dense_replace: 3,
  hidden_size: 7168,
  intermediate_size: 18432,
  max_position_embeddings: 163840,
  moe_intermediate_size: 2048,
  n_group: 8,
  n_routed_experts: 256,
  n_shared_experts: 1,
  num_attention_heads: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 61,
  num_key_value_heads: 128,
  num_nextn_predict_layers: 1,
  q_lora_rank: 1536,
  quantization_config: {
    activation_scheme: 'dynamic',
    fmt: 'e4m3',
    quant_method: 'fp8',
    weight_block_size: [128, 128],
  },
  rms_norm_eps: 1e-6,
  rope_scaling: { ...YARN, mscale: 1.0, mscale_all_dim: 1.0 },
  rope_theta: 10000,
  routed_scaling_factor: 2.5,
  topk_group: 4,
  vocab_size: 129280,
}

const V32: Fields = {
  ...V3,
  architectures: ['DeepseekV32ForCausalLM'],
  model_type: 'deepseek_v32',
  index_head_dim: 128,
  index_n_heads: 64,
  index_topk: 2048,
}

const KIMI_K2: Fields = {
  ...V3,
  model_type: 'kimi_k2',
  eos_token_id: 163586,
  first_k_dense_replace: 1,
  n_group: 1,
  n_routed_experts: 384,
  num_attention_heads: 64,
  num_nextn_predict_layers: 0,
  rope_scaling: { ...YARN, beta_fast: 1.0, beta_slow: 1.0, factor: 32.0, mscale: 1.0, mscale_all_dim: 1.0 },
  rope_theta: 50000.0,
  routed_scaling_factor: 2.827,
  topk_group: 1,
  vocab_size: 163840,
}

const without = (fields: Fields, ...names: string[]): Fields =>
  Object.fromEntries(Object.entries(fields).filter(([name]) => !names.includes(name)))

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sparrow-config-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const open = (fields: Fields) => {
  writeFileSync(join(dir, 'config.json'), JSON.stringify(fields))
  return openNativeEngine({ modelDir: dir, tokenBytes: [], isa: 'scalar' })
}

test.each([
  ['DeepSeek-V2-Lite', V2_LITE],
  ['DeepSeek-V2', V2],
  ['Moonlight-16B-A3B', MOONLIGHT],
  ['DeepSeek-V3', V3],
  ['DeepSeek-V3.2', V32],
  ['Kimi K2', KIMI_K2],
  // As newer tools write them: names moved, nulls, and what the architecture's own class leaves out.
  [
    'V2-Lite, saved again',
    {
      ...without(V2_LITE, 'rope_scaling', 'rope_theta', 'torch_dtype', 'scoring_func', 'moe_layer_freq'),
      ...{ dtype: 'bfloat16', head_dim: 64, mlp_bias: false, n_group: null, topk_group: null },
      rope_parameters: {
        ...without(YARN, 'type'),
        rope_type: 'yarn',
        rope_theta: 1e4,
        mscale: MSCALE,
        mscale_all_dim: MSCALE,
      },
    },
  ],
  [
    'V3, saved again',
    {
      ...without(V3, 'rope_scaling', 'rope_theta', 'scoring_func', 'topk_method', 'moe_layer_freq'),
      ...{ head_dim: 64, rope_interleave: true, eos_token_id: [1, 2] },
      rope_parameters: { rope_type: 'default', rope_theta: 1e4 },
    },
  ],
] as const)('read whole: %s', async (_name, fields) => {
  await expect(open(fields)).rejects.toMatchObject({
    code: 'checkpoint_invalid',
    message: expect.stringMatching(/model\.safetensors.*no such file/),
  })
})

test.each([
  [{ ...V2_LITE, topk_method: 'gready' }, /topk_method 'gready' is not supported/],
  [{ ...V2_LITE, attention_bias: true }, /attention_bias true/],
  [{ ...V2_LITE, mlp_bias: true }, /mlp_bias true/],
  [{ ...V2_LITE, use_mla: false }, /use_mla false/],
  [{ ...V2_LITE, rope_scaling: { type: 'linear', factor: 4 } }, /rope_scaling.type 'linear'/],
  [{ ...V2_LITE, rope_scaling: { factor: 40 } }, /rope_scaling.type ''/],
  [{ ...V2_LITE, rope_scaling: { ...YARN, attention_factor: 1.2 } }, /rope_scaling.attention_factor/],
  [{ ...V2_LITE, rope_scaling: { ...YARN, truncate: false } }, /rope_scaling.truncate/],
  [{ ...V3, rope_interleave: false }, /rope_interleave false/],
  [{ ...V32, rope_scaling: { ...YARN, mscale: 1 } }, /rope_scaling.mscale differs from mscale_all_dim/],
  [{ ...V32, q_lora_rank: null }, /q_lora_rank null/],
  // The classes' own defaults of these belong to the 671B model: a file that leaves them out is not whole.
  [without(V3, 'n_group'), /n_group is missing/],
  [without(V3, 'topk_group'), /topk_group is missing/],
  [without(V3, 'routed_scaling_factor'), /routed_scaling_factor is missing/],
  [without(V3, 'first_k_dense_replace'), /first_k_dense_replace is missing/],
  [without(V2, 'n_group'), /n_group is missing/],
  [{ ...V2, topk_group: 9 }, /topk_group exceeds n_group/],
])('refused: %#', async (fields, message) => {
  await expect(open(fields)).rejects.toMatchObject({ message: expect.stringMatching(message) })
})
