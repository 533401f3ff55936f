// The MTP layer on one screen: a guess at the token after the next, from the main model's last hidden state.
//   v[i] = eh_proj [ rms(embed(token[i + 1])) ; rms(m[i]) ];  m[i] stands behind the main model's final norm
//   v[i] through one decoder layer at position i, with a cache of its own;  logits for i + 2 = head rms(v[i])
#include <algorithm>

#include "model.h"

namespace sparrow {

void Model::draft(const Pairs& pairs, KvMemory& kv, Lines<float>& logits, const Tap* tap) {
  const SpBackend& b = backend_.table;
  const MtpWeights& w = *weights_.mtp;
  const Batch& batch = pairs.batch;
  const int32_t n = batch.size(), hidden = config_.hidden_size;
  const float eps = static_cast<float>(config_.rms_norm_eps);
  const SpTokens tokens = {n, batch.positions.data(), batch.tables.data()};
  s_.x.resize(static_cast<size_t>(n) * hidden);
  s_.normed.resize(s_.x.size());
  s_.pair.resize(2 * s_.x.size());
  b.embed(b.self, w.embed.rows ? &w.embed : &weights_.embed, batch.ids.data(), n, s_.x.data());
  for (size_t t = 0; t < pairs.rows.size(); t++) {
    const int32_t row = pairs.rows[t];
    const float* before = row < 0 ? pairs.kept[static_cast<size_t>(~row)].data() : hidden_of(row).data();
    std::copy_n(before, hidden, s_.normed.data() + t * hidden);
  }
  b.rms_norm(b.self, s_.x.data(), hidden, w.enorm.data(), n, hidden, eps, s_.pair.data(), 2 * hidden);
  b.rms_norm(b.self, s_.normed.data(), hidden, w.hnorm.data(), n, hidden, eps, s_.pair.data() + hidden, 2 * hidden);
  const SpProduct product = {&w.eh_proj, s_.x.data()};
  b.matmul(b.self, &product, 1, s_.pair.data(), n);
  layer(w.layer, step_of(config_.num_hidden_layers, tokens, kv, tap, beyond_top_k(tokens) > 0));
  logits_of(s_.x, batch.logit_rows, w.norm, w.head.rows ? w.head : weights_.lm_head, logits);
  if (tap)
    (*tap)(config_.num_hidden_layers, "draft_logits", logits.data(), static_cast<int64_t>(batch.logit_rows.size()),
           config_.vocab_size);
}

}  // namespace sparrow
