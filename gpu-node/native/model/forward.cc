// The model on one screen: embed, layers of attention and feed-forward, final norm, logits.
#include <algorithm>

#include "model.h"
#include "rope_table.h"

namespace sparrow {
namespace {
// No file bears max_position_embeddings out, so it is bounded by what it makes us prepare: 1M positions of 64 rotated
// dimensions.
constexpr int64_t kRopeTableBytesMax = int64_t{1} << 28;
}  // namespace

Result<Model> Model::open(const std::string& dir, const std::string& isa, int threads, int context_max,
                          const std::string& kv, bool mtp, const std::string& attention) {
  if (attention != "invariant" && attention != "fastest")
    return error(Code::kBadArgument, "attention: '" + attention + "' is neither invariant nor fastest");
  Result<std::string> config_text = read_text_file(dir + "/config.json", 16u << 20);
  if (!config_text.ok()) return config_text.status();
  Result<std::string> generation = read_text_file(dir + "/generation_config.json", 16u << 20);
  Result<ModelConfig> config = parse_config(config_text.value(), generation.ok() ? generation.value() : "");
  if (!config.ok()) return config.status();
  if (!mtp) config.value().num_nextn_predict_layers = 0;
  Result<Checkpoint> files = Checkpoint::open(dir);
  if (!files.ok()) return files.status();
  Result<Backend> backend = open_backend(isa, threads, kv);
  if (!backend.ok()) return backend.status();
  const bool fastest = attention == "fastest" && backend.value().table.attend_expanded;
  Result<Weights> weights =
      load_weights(config.value(), std::make_shared<const Checkpoint>(std::move(files.value())), fastest);
  if (!weights.ok()) return weights.status();
  Model model;
  model.config_ = std::move(config.value());
  model.weights_ = std::move(weights.value());
  model.backend_ = std::move(backend.value());
  if (fastest) model.attention_ = Attention::kFastest;
  model.context_ = context_max > 0 ? std::min(context_max, model.config_.max_position_embeddings)
                                   : model.config_.max_position_embeddings;
  const int64_t rope_bytes = int64_t{model.context_} * model.config_.qk_rope_head_dim * 4;
  if (rope_bytes > kRopeTableBytesMax)
    return unsupported("config.json: max_position_embeddings asks for " + std::to_string(rope_bytes) +
                       " bytes of rotations; open with a shorter context");
  model.rope_table_ = rope_table(model.config_, model.context_);
  if (const Status packed = model.pack(); !packed.ok()) return packed;
  return model;
}

int64_t Model::page_bytes() const {
  const SpBackend& b = backend_.table;
  return cache_layers() * (b.row_bytes(b.self, config_.kv_lora_rank, config_.qk_rope_head_dim) +
                           b.key_bytes(b.self, config_.index_head_dim));
}

KvMemory Model::make_kv(int pages) const {
  const SpBackend& b = backend_.table;
  KvMemory kv;
  kv.pages = pages;
  kv.layers = cache_layers();
  kv.row_bytes = b.row_bytes(b.self, config_.kv_lora_rank, config_.qk_rope_head_dim);
  kv.key_bytes = b.key_bytes(b.self, config_.index_head_dim);
  kv.bytes = HugeBuffer(static_cast<size_t>(page_bytes()) * static_cast<size_t>(pages));
  return kv;
}

Model::Step Model::step_of(int layer, const SpTokens& tokens, KvMemory& kv, const Tap* tap, bool sparse) const {
  const SpPages pages = {kv.bytes.data() + kv.row_bytes * layer,
                         kv.row_bytes * kv.layers,
                         kv.keys() + kv.key_bytes * layer,
                         kv.key_bytes * kv.layers,
                         config_.kv_lora_rank,
                         config_.qk_rope_head_dim,
                         config_.index_head_dim};
  return {&tokens, pages, layer, tap, sparse || (config_.has_indexer && !dense_ && tap)};
}

/// s_.x through one decoder layer.
void Model::layer(const LayerWeights& w, const Step& step) {
  const SpBackend& b = backend_.table;
  const int32_t n = step.tokens->n, hidden = config_.hidden_size;
  const float eps = static_cast<float>(config_.rms_norm_eps);
  s_.normed.resize(s_.x.size());
  s_.out.resize(s_.x.size());
  b.rms_norm(b.self, s_.x.data(), hidden, w.input_layernorm.data(), n, hidden, eps, s_.normed.data(), hidden);
  attention(w, step);
  b.add(b.self, s_.x.data(), s_.out.data(), static_cast<int64_t>(s_.x.size()));
  b.rms_norm(b.self, s_.x.data(), hidden, w.post_attention_layernorm.data(), n, hidden, eps, s_.normed.data(), hidden);
  feed_forward(w, step);
  b.add(b.self, s_.x.data(), s_.out.data(), static_cast<int64_t>(s_.x.size()));
  if (step.tap) (*step.tap)(step.layer, "layer_out", s_.x.data(), n, hidden);
}

void Model::logits_of(const Lines<float>& x, const std::vector<int32_t>& rows, const std::vector<float>& norm,
                      const SpMatrix& head, Lines<float>& logits) {
  const SpBackend& b = backend_.table;
  const int32_t n = static_cast<int32_t>(rows.size()), hidden = config_.hidden_size;
  s_.out.resize(static_cast<size_t>(n) * hidden);
  s_.normed.resize(s_.out.size());
  logits.resize(static_cast<size_t>(n) * config_.vocab_size);
  for (size_t i = 0; i < rows.size(); i++)
    std::copy_n(x.data() + static_cast<int64_t>(rows[i]) * hidden, hidden, s_.out.data() + i * hidden);
  b.rms_norm(b.self, s_.out.data(), hidden, norm.data(), n, hidden, static_cast<float>(config_.rms_norm_eps),
             s_.normed.data(), hidden);
  const SpProduct product = {&head, logits.data()};
  b.matmul(b.self, &product, 1, s_.normed.data(), n);
}

bool Model::forward(const Batch& batch, KvMemory& kv, Lines<float>& logits, const std::function<bool()>& cancelled,
                    const Tap* tap) {
  const SpBackend& b = backend_.table;
  const int32_t n = batch.size(), hidden = config_.hidden_size;
  const SpTokens tokens = {n, batch.positions.data(), batch.tables.data()};
  const int64_t beyond = beyond_top_k(tokens);
  sparse_queries_ += beyond;
  s_.x.resize(static_cast<size_t>(n) * hidden);
  b.embed(b.self, &weights_.embed, batch.ids.data(), n, s_.x.data());
  for (int l = 0; l < config_.num_hidden_layers; l++) {
    if (cancelled && cancelled()) return false;
    layer(weights_.layers[static_cast<size_t>(l)], step_of(l, tokens, kv, tap, beyond > 0));
  }
  logits_of(s_.x, batch.logit_rows, weights_.norm, weights_.lm_head, logits);
  if (!drafts()) return true;
  s_.hidden.resize(s_.x.size());
  b.rms_norm(b.self, s_.x.data(), hidden, weights_.norm.data(), n, hidden, static_cast<float>(config_.rms_norm_eps),
             s_.hidden.data(), hidden);
  return true;
}

}  // namespace sparrow
