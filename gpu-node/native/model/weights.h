// The weights of one model as matrices ready for the backend: names, shapes and dtypes checked on the way in.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../backend.h"
#include "checkpoint.h"
#include "config.h"

namespace sparrow {

struct IndexerWeights {
  SpMatrix wq_b{}, wk{}, weights_proj{};  // (index_n_heads * index_head_dim, q_lora_rank), (index_head_dim, hidden),
                                          // (index_n_heads, hidden)
  std::vector<float> k_norm_weight, k_norm_bias;  // (index_head_dim)
};

struct MlpWeights {
  SpMatrix gate{}, up{}, down{};  // (inter, hidden) twice, (hidden, inter)
};

struct LayerWeights {
  std::vector<float> input_layernorm, post_attention_layernorm;  // (hidden)
  std::vector<float> q_a_layernorm, kv_a_layernorm;              // (q_lora_rank), (kv_lora_rank)
  SpMatrix q_a_proj{};                                           // (q_lora_rank, hidden); unused when q_lora_rank is 0
  SpMatrix q_proj{};     // q_b_proj (heads * qk dim, q_lora_rank), or q_proj (heads * qk dim, hidden)
  SpMatrix kv_a_proj{};  // (kv_lora_rank + rope, hidden)
  SpMatrix uk{};       // (heads * kv_lora_rank, nope): kv_b_proj's key half, transposed per head for the absorbed query
  SpMatrix uk_rows{};  // (heads * nope, kv_lora_rank): the key half as it is, kept for expanded attention alone
  SpMatrix uv{};       // (heads * v, kv_lora_rank): kv_b_proj's value half
  SpMatrix o_proj{};   // (hidden, heads * v)
  IndexerWeights indexer;
  MlpWeights mlp;                                             // dense layer, or the shared experts
  SpMatrix router{};                                          // (n_routed_experts, hidden); rows 0 on a dense layer
  std::vector<float> router_bias;                             // (n_routed_experts), may be empty
  std::vector<SpMatrix> expert_gate, expert_up, expert_down;  // (n_routed_experts)
};

/// The next-token-prediction layer (MTP): from a token's last hidden state and the token behind it, what follows both.
struct MtpWeights {
  std::vector<float> enorm, hnorm, norm;  // (hidden); norm is shared_head.norm
  SpMatrix eh_proj{};                     // (hidden, 2 * hidden), embedding first
  SpMatrix embed{}, head{};               // (vocab, hidden); rows 0: the main model's serves
  LayerWeights layer;
};

struct Weights {
  SpMatrix embed{}, lm_head{};  // (vocab, hidden)
  std::vector<float> norm;      // (hidden)
  std::vector<LayerWeights> layers;
  std::optional<MtpWeights> mtp;
  int64_t parameters = 0;
  std::shared_ptr<const Checkpoint> files;        // keeps the mapping that matrices point into
  std::vector<std::shared_ptr<uint8_t[]>> owned;  // rearranged or realigned copies
};

/// expanded: keep uk_rows too. Errors: checkpoint_invalid or unsupported, naming the tensor, expected against actual. A
/// checkpoint that promises an MTP layer but holds none of it, as some exports do, loads without; one that holds a part
/// of it is an error.
Result<Weights> load_weights(const ModelConfig& config, std::shared_ptr<const Checkpoint> files, bool expanded = false);

}  // namespace sparrow
