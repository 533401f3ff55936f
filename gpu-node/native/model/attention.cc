// Multi-head latent attention. Absorbed: queries meet the cached latents directly, so decode and prefill are one path.
//   cq = rms(q_a x);  q = q_b cq = nope|rope per head;  (c, kr) = kv_a x, c normed, kr rotated -> cache
//   z[h] = softmax(scale * (UK[h]^T qn[h] . c + qr[h] . kr)) c over the chosen positions;  out = o_proj concat_h UV[h]
//   z[h]
// Expanded, where asked for and cheaper: keys UK[h] c | kr and values UV[h] c are made first, for a piece of one
// sequence.
#include <algorithm>
#include <chrono>

#include "crossover.h"
#include "model.h"

namespace sparrow {
namespace {
constexpr int32_t kTileTokens = 32;
}

/// What is computed from the layer's input: query latent, KV row and, for the indexer, key and head weights.
void Model::project_input(const LayerWeights& w, const Step& step) {
  const SpBackend& b = backend_.table;
  const int32_t n = step.tokens->n, rank = config_.kv_lora_rank, rope = config_.qk_rope_head_dim;
  SpProduct products[4];
  int32_t count = 0;
  const auto add = [&](const SpMatrix& matrix, Lines<float>& y) {
    y.resize(static_cast<size_t>(n) * matrix.rows);
    products[count++] = {&matrix, y.data()};
  };
  if (config_.q_lora_rank)
    add(w.q_a_proj, s_.cq);
  else
    add(w.q_proj, s_.q);
  add(w.kv_a_proj, s_.kv);
  if (config_.has_indexer) add(w.indexer.wk, s_.index_k);
  if (step.sparse) add(w.indexer.weights_proj, s_.index_w);
  b.matmul(b.self, products, count, s_.normed.data(), n);
  const float eps = static_cast<float>(config_.rms_norm_eps);
  if (config_.q_lora_rank)
    b.rms_norm(b.self, s_.cq.data(), config_.q_lora_rank, w.q_a_layernorm.data(), n, config_.q_lora_rank, eps,
               s_.cq.data(), config_.q_lora_rank);
  s_.latent.resize(static_cast<size_t>(n) * rank);
  b.rms_norm(b.self, s_.kv.data(), rank + rope, w.kv_a_layernorm.data(), n, rank, eps, s_.latent.data(), rank);
}

void Model::project_query(const LayerWeights& w, const Step& step) {
  const SpBackend& b = backend_.table;
  const int32_t n = step.tokens->n, heads = config_.num_attention_heads, nope = config_.qk_nope_head_dim,
                dim = config_.qk_head_dim();
  s_.q.resize(static_cast<size_t>(n) * heads * dim);
  if (step.sparse) s_.index_q.resize(static_cast<size_t>(n) * w.indexer.wq_b.rows);
  const SpProduct products[] = {{&w.q_proj, s_.q.data()}, {&w.indexer.wq_b, s_.index_q.data()}};
  if (config_.q_lora_rank) b.matmul(b.self, products, step.sparse ? 2 : 1, s_.cq.data(), n);
  b.rope(b.self, s_.q.data() + nope, step.tokens->positions, n, heads, heads * dim, dim, config_.qk_rope_head_dim,
         rope_table_.data(), 0);
}

void Model::write_cache(const Step& step) {
  const SpBackend& b = backend_.table;
  const int32_t n = step.tokens->n, rank = config_.kv_lora_rank, rope = config_.qk_rope_head_dim;
  s_.rope.resize(static_cast<size_t>(n) * rope);
  for (int64_t t = 0; t < n; t++) std::copy_n(s_.kv.data() + t * (rank + rope) + rank, rope, s_.rope.data() + t * rope);
  b.rope(b.self, s_.rope.data(), step.tokens->positions, n, 1, rope, rope, rope, rope_table_.data(), 0);
  b.cache_write(b.self, &step.pages, step.tokens, s_.latent.data(), s_.rope.data(),
                config_.has_indexer ? s_.index_k.data() : nullptr);
}

/// Tokens [from, from + n) of the step: absorbed query, attention, values. In tiles, because a token's absorbed query
/// and its weighted latents are each heads * kv_lora_rank floats: a whole step of them would leave the caches.
void Model::attend_tile(const LayerWeights& w, const Step& step, int32_t from, int32_t n) {
  const SpBackend& b = backend_.table;
  const int32_t heads = config_.num_attention_heads, rank = config_.kv_lora_rank, rope = config_.qk_rope_head_dim,
                nope = config_.qk_nope_head_dim, dim = config_.qk_head_dim(), v = config_.v_head_dim;
  const float* q = s_.q.data() + int64_t{from} * heads * dim;
  s_.q_latent.resize(static_cast<size_t>(n) * heads * rank);
  b.matmul_heads(b.self, &w.uk, q, heads * dim, dim, n, s_.q_latent.data());
  // The rope parts side by side, as the attention op reads them.
  s_.q_rope.resize(static_cast<size_t>(n) * heads * rope);
  for (int64_t i = 0; i < static_cast<int64_t>(n) * heads; i++)
    std::copy_n(q + i * dim + nope, rope, s_.q_rope.data() + i * rope);
  s_.z.resize(static_cast<size_t>(n) * heads * rank);
  const SpTokens tokens = {n, step.tokens->positions + from, step.tokens->tables + from};
  const SpAttention a = {s_.q_latent.data(),
                         s_.q_rope.data(),
                         step.sparse ? s_.chosen.data() + int64_t{from} * config_.index_topk : nullptr,
                         step.sparse ? s_.counts.data() + from : nullptr,
                         heads,
                         config_.index_topk,
                         static_cast<float>(config_.softmax_scale())};
  b.attend(b.self, &a, &step.pages, &tokens, s_.z.data());
  b.matmul_heads(b.self, &w.uv, s_.z.data(), static_cast<int64_t>(heads) * rank, rank, n,
                 s_.heads.data() + int64_t{from} * heads * v);
}

bool Model::takes_expanded(const LayerWeights& w, const Step& step, int32_t from, int32_t n) const {
  if (attention_ == Attention::kInvariant || !w.uk_rows.rows) return false;
  const AttentionShape shape = {config_.kv_lora_rank, config_.qk_rope_head_dim, config_.qk_nope_head_dim,
                                config_.v_head_dim};
  const AttentionPiece piece = {n, step.tokens->positions[from], step.sparse ? config_.index_topk : 0};
  return n >= kExpandedTokensMin && (attention_ == Attention::kExpanded || expanded_pays(shape, piece));
}

/// Tokens [from, from + n), all of one sequence.
void Model::attend_expanded(const LayerWeights& w, const Step& step, int32_t from, int32_t n) {
  const SpBackend& b = backend_.table;
  const int64_t heads = config_.num_attention_heads;
  const SpTokens tokens = {n, step.tokens->positions + from, step.tokens->tables + from};
  const SpExpanded a = {s_.q.data() + from * heads * config_.qk_head_dim(),
                        &w.uk_rows,
                        &w.uv,
                        step.sparse ? s_.chosen.data() + int64_t{from} * config_.index_topk : nullptr,
                        step.sparse ? s_.counts.data() + from : nullptr,
                        config_.num_attention_heads,
                        config_.qk_nope_head_dim,
                        config_.v_head_dim,
                        config_.index_topk,
                        static_cast<float>(config_.softmax_scale())};
  b.attend_expanded(b.self, &a, &step.pages, &tokens, s_.heads.data() + from * heads * config_.v_head_dim);
  expanded_tokens_ += n;
}

void Model::attend_absorbed(const LayerWeights& w, const Step& step, int32_t from, int32_t end) {
  for (; from < end; from += kTileTokens) attend_tile(w, step, from, std::min(kTileTokens, end - from));
}

/// Piece by piece of the sequences, each in the form it takes.
void Model::attend(const LayerWeights& w, const Step& step) {
  const auto start = std::chrono::steady_clock::now();
  const int32_t n = step.tokens->n;
  const int32_t* const* tables = step.tokens->tables;
  int32_t from = 0;  // of the tokens not attended yet
  for (int32_t begin = 0, end = 0; begin < n; begin = end) {
    while (end < n && tables[end] == tables[begin]) end++;
    if (!takes_expanded(w, step, begin, end - begin)) continue;
    attend_absorbed(w, step, from, begin);
    attend_expanded(w, step, begin, end - begin);
    from = end;
  }
  attend_absorbed(w, step, from, n);
  attend_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void Model::attention(const LayerWeights& w, const Step& step) {
  const SpBackend& b = backend_.table;
  const int32_t n = step.tokens->n, heads = config_.num_attention_heads, rank = config_.kv_lora_rank,
                rope = config_.qk_rope_head_dim, dim = config_.qk_head_dim();
  project_input(w, step);
  project_query(w, step);
  if (config_.has_indexer) index_key(w, step);
  write_cache(step);
  if (step.sparse) select(step);
  s_.heads.resize(static_cast<size_t>(n) * heads * config_.v_head_dim);
  attend(w, step);
  const SpProduct out = {&w.o_proj, s_.out.data()};
  b.matmul(b.self, &out, 1, s_.heads.data(), n);
  if (!step.tap) return;
  const Tap& tap = *step.tap;
  tap(step.layer, "attn_norm", s_.normed.data(), n, config_.hidden_size);
  if (config_.q_lora_rank) tap(step.layer, "cq", s_.cq.data(), n, config_.q_lora_rank);
  tap(step.layer, "q", s_.q.data(), n, static_cast<int64_t>(heads) * dim);
  tap(step.layer, "latent", s_.latent.data(), n, rank);
  tap(step.layer, "k_rope", s_.rope.data(), n, rope);
  tap(step.layer, "attn_heads", s_.heads.data(), n, static_cast<int64_t>(heads) * config_.v_head_dim);
  tap(step.layer, "attn_out", s_.out.data(), n, config_.hidden_size);
}

}  // namespace sparrow
