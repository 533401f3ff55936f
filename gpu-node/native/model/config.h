// config.json of a DeepSeek-V3 family checkpoint, validated. Fields keep the checkpoint's own names.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../status.h"

namespace sparrow {

enum class ScoringFunc { kSigmoid, kSoftmax };
enum class TopkMethod { kNoauxTc, kGroupLimitedGreedy, kGreedy };

struct RopeScaling {
  bool present = false;  // YaRN, or plain RoPE when false
  double factor = 1, beta_fast = 32, beta_slow = 1, mscale = 1, mscale_all_dim = 0;
  int original_max_position_embeddings = 4096;
};

struct ModelConfig {
  std::string architecture;  // DeepseekV32ForCausalLM | DeepseekV3ForCausalLM | DeepseekV2ForCausalLM
  bool has_indexer = false;
  int vocab_size = 0, hidden_size = 0, num_hidden_layers = 0, num_attention_heads = 0;
  int q_lora_rank = 0;  // 0: null in the file, one q_proj
  int kv_lora_rank = 0, qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;
  int intermediate_size = 0, moe_intermediate_size = 0, first_k_dense_replace = 0, moe_layer_freq = 1;
  int n_routed_experts = 0, n_shared_experts = 0, num_experts_per_tok = 0, n_group = 1, topk_group = 1;
  ScoringFunc scoring_func = ScoringFunc::kSigmoid;
  TopkMethod topk_method = TopkMethod::kNoauxTc;
  bool norm_topk_prob = true, tie_word_embeddings = false, indexer_rope_interleave = false;
  double routed_scaling_factor = 1, rms_norm_eps = 1e-6, rope_theta = 10000;
  int index_n_heads = 0, index_head_dim = 0, index_topk = 0;
  int max_position_embeddings = 0;
  int quantization_group = 0;  // quantization_config.group_size of int8 and int4 weights; 0 when absent
  RopeScaling rope_scaling;
  std::vector<int32_t> eos_token_ids;

  int qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  bool is_moe_layer(int layer) const {
    return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
  /// 1/sqrt(qk dim), times YaRN's mscale_all_dim correction squared where the config asks for it.
  double softmax_scale() const;
  /// What cosines and sines are multiplied by: 1 unless YaRN's mscale differs from mscale_all_dim.
  double rope_magnitude() const;
};

/// `generation_text` (generation_config.json) may be empty; its eos_token_id, a number or a list, wins over
/// config.json's.
Result<ModelConfig> parse_config(std::string_view config_text, std::string_view generation_text);

}  // namespace sparrow
