// The lightning indexer: which positions a query attends to.
//   q = wq_b cq -> heads of rope|nope;  k = LayerNorm(wk x), rope|nope;  both rotated half-split (a config switch for
//   GLM) w = weights_proj x * heads^-0.5 * dim^-0.5;  I[t,s] = sum_j w[t,j] relu(q[t,j] . k[s]);  S_t = top-k over s <=
//   t
// The Hadamard rotation of the published code is left out on both sides: without quantised keys it cancels exactly.
#include <algorithm>
#include <chrono>
#include <cmath>

#include "model.h"

namespace sparrow {

/// How many queries of the step see more than index_topk positions, so that a choice is to be made.
int64_t Model::beyond_top_k(const SpTokens& tokens) const {
  if (!config_.has_indexer || dense_) return 0;
  return std::count_if(tokens.positions, tokens.positions + tokens.n,
                       [&](int32_t p) { return p >= config_.index_topk; });
}

void Model::index_key(const LayerWeights& w, const Step& step) {
  const SpBackend& b = backend_.table;
  const int32_t n = step.tokens->n, dim = config_.index_head_dim;
  constexpr float kNormEps = 1e-6f;  // LayerNorm's own, whatever rms_norm_eps says
  b.layer_norm(b.self, s_.index_k.data(), w.indexer.k_norm_weight.data(), w.indexer.k_norm_bias.data(), n, dim,
               kNormEps, s_.index_k.data());
  b.rope(b.self, s_.index_k.data(), step.tokens->positions, n, 1, dim, dim, config_.qk_rope_head_dim,
         rope_table_.data(), config_.indexer_rope_interleave ? 0 : 1);
}

void Model::select(const Step& step) {
  const auto start = std::chrono::steady_clock::now();
  const SpBackend& b = backend_.table;
  const int32_t n = step.tokens->n, heads = config_.index_n_heads, dim = config_.index_head_dim;
  const int32_t* positions = step.tokens->positions;
  b.rope(b.self, s_.index_q.data(), positions, n, heads, static_cast<int64_t>(heads) * dim, dim,
         config_.qk_rope_head_dim, rope_table_.data(), config_.indexer_rope_interleave ? 0 : 1);
  const float scale = 1.0f / std::sqrt(static_cast<float>(heads) * static_cast<float>(dim));
  for (float& v : s_.index_w) v *= scale;

  s_.chosen.resize(static_cast<size_t>(n) * config_.index_topk);
  s_.counts.resize(static_cast<size_t>(n));
  const SpIndexQuery query = {s_.index_q.data(), s_.index_w.data(), heads, dim, config_.index_topk};
  std::vector<float> scores;
  const int64_t length = *std::max_element(positions, positions + n) + 1;
  if (step.tap) {
    scores.resize(static_cast<size_t>(n * length));
    std::fill(s_.chosen.begin(), s_.chosen.end(), -1);
  }
  b.index_select(b.self, &query, &step.pages, step.tokens, s_.chosen.data(), s_.counts.data(),
                 step.tap ? scores.data() : nullptr, length);
  select_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (step.tap) {
    const std::vector<float> chosen(s_.chosen.begin(), s_.chosen.end());
    (*step.tap)(step.layer, "index_q", s_.index_q.data(), n, static_cast<int64_t>(heads) * dim);
    (*step.tap)(step.layer, "index_k", s_.index_k.data(), n, dim);
    (*step.tap)(step.layer, "index_w", s_.index_w.data(), n, heads);
    (*step.tap)(step.layer, "index_scores", scores.data(), n, length);
    (*step.tap)(step.layer, "index_chosen", chosen.data(), n, config_.index_topk);
  }
}

}  // namespace sparrow
