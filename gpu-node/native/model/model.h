// One forward step of the model over tokens of any sequences. Knows the graph and the config; no sequence, no
// instruction set.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "../backend/registry.h"
#include "../huge_buffer.h"
#include "../lines.h"
#include "config.h"
#include "weights.h"

namespace sparrow {

/// Cache memory of all layers; a page holds the same 64 positions of every layer. Its latents and rope parts are one
/// piece, its index keys another: those of all pages lie close together.
struct KvMemory {
  HugeBuffer bytes;                      // (pages, layers, row_bytes), then (pages, layers, key_bytes)
  int64_t row_bytes = 0, key_bytes = 0;  // of a page in one layer
  int64_t layers = 0;
  int pages = 0;

  uint8_t* keys() const { return bytes.data() + pages * layers * row_bytes; }
  std::span<uint8_t> rows_of(int32_t page) const { return piece(bytes.data(), layers * row_bytes, page); }
  std::span<uint8_t> keys_of(int32_t page) const { return piece(keys(), layers * key_bytes, page); }

 private:
  static std::span<uint8_t> piece(uint8_t* from, int64_t size, int32_t page) {
    return {from + size * page, static_cast<size_t>(size)};
  }
};

/// n tokens, the last token of a sequence's part marked in `logit_rows` when its logits are wanted.
struct Batch {
  std::vector<int32_t> ids, positions;  // (n)
  std::vector<const int32_t*> tables;   // (n)
  std::vector<int32_t> logit_rows;      // indexes into the n tokens, ascending
  int32_t size() const { return static_cast<int32_t>(ids.size()); }
  void add(int32_t id, int32_t position, const int32_t* table) {
    ids.push_back(id);
    positions.push_back(position);
    tables.push_back(table);
  }
};

/// A Batch of the MTP layer: ids are tokens that follow (each stands at the position of the token before it), rows[t]
/// says which token of the last forward comes before ids[t]; below zero, ~rows[t] says which state in `kept` does.
struct Pairs {
  Batch batch;
  std::vector<int32_t> rows;
  std::vector<std::vector<float>> kept;
};

/// Receives named intermediates of a step: (layer or -1, name, data, rows, cols). For tests.
using Tap = std::function<void(int layer, const char* name, const float* data, int64_t rows, int64_t cols)>;

/// Which form attention takes. kFastest: expanded keys for a piece of a sequence where that costs less (crossover.h);
/// kExpanded: for every piece that is long enough, to compare with. Both only where the backend has the form.
enum class Attention { kInvariant, kFastest, kExpanded };

class Model {
 public:
  /// `context_max` positions are prepared for (rope table). kv: what pages hold (registry.h). Without `mtp` the
  /// checkpoint's MTP layer is left out. attention: invariant | fastest.
  static Result<Model> open(const std::string& dir, const std::string& isa, int threads, int context_max,
                            const std::string& kv = "auto", bool mtp = true,
                            const std::string& attention = "invariant");

  const ModelConfig& config() const { return config_; }
  const Weights& weights() const { return weights_; }
  const SpBackend& backend() const { return backend_.table; }
  int context() const { return context_; }

  /// Whether an MTP layer is there to guess with.
  bool drafts() const { return weights_.mtp.has_value(); }

  /// Bytes of a KV page, all layers, the MTP layer's rows with them. Untouched pages of a KvMemory take no memory.
  int64_t page_bytes() const;
  KvMemory make_kv(int pages) const;

  /// Runs the step; logits (logit_rows, vocab). `cancelled` is asked between layers; true stops early and returns
  /// false.
  bool forward(const Batch& batch, KvMemory& kv, Lines<float>& logits, const std::function<bool()>& cancelled,
               const Tap* tap = nullptr);

  /// Runs the MTP layer over what the last forward left: writes its cache rows; logits (batch.logit_rows, vocab) for
  /// the token behind each of batch.ids. Only when drafts().
  void draft(const Pairs& pairs, KvMemory& kv, Lines<float>& logits, const Tap* tap = nullptr);

  /// Runs body(i) for every i in [0, items) on the backend's threads; not from inside a forward.
  template <class Body>
  void each(int64_t items, const Body& body) const {
    const auto call = [](const void* context, int64_t i) { (*static_cast<const Body*>(context))(i); };
    const SpBackend& b = backend_.table;
    if (b.each) return b.each(b.self, items, call, &body);
    for (int64_t i = 0; i < items; i++) body(i);
  }

  /// Of a token of the last forward: what the MTP layer pairs with the token behind it. Only when drafts().
  std::span<const float> hidden_of(int32_t row) const {
    const size_t size = static_cast<size_t>(config_.hidden_size);
    return std::span<const float>(s_.hidden).subspan(static_cast<size_t>(row) * size, size);
  }

  /// Dense attention from now on, or no longer: the indexer's keys are kept, its choice is not asked for.
  void attend_to_all(bool dense) { dense_ = dense; }
  bool attends_to_all() const { return dense_; }

  /// For a model that was opened with attention `fastest`; any other stays invariant.
  void attend_as(Attention how) { attention_ = how; }
  /// Seconds spent on attention itself so far, and tokens that met expanded keys, all layers.
  double attend_seconds() const { return attend_seconds_; }
  double select_seconds() const { return select_seconds_; }
  int64_t expanded_tokens() const { return expanded_tokens_; }

  int64_t sparse_queries() const { return sparse_queries_; }

 private:
  struct Scratch {
    Lines<float> hidden;  // of the last forward's tokens, after the final norm; kept for draft()
    Lines<float> pair, x, normed, cq, q, kv, latent, rope, q_latent, q_rope, z, heads, out, index_q, index_k, index_w,
        gate, up, router, expert_weights;
    std::vector<int32_t> chosen, counts, expert_ids;
  };
  struct Step {
    const SpTokens* tokens;
    SpPages pages;
    int layer;
    const Tap* tap;
    bool sparse;  // some query has a choice to make; also with a tap, which shows it
  };

  int cache_layers() const { return config_.num_hidden_layers + (drafts() ? 1 : 0); }
  Step step_of(int layer, const SpTokens& tokens, KvMemory& kv, const Tap* tap, bool sparse) const;
  void layer(const LayerWeights& w, const Step& step);
  void logits_of(const Lines<float>& x, const std::vector<int32_t>& rows, const std::vector<float>& norm,
                 const SpMatrix& head, Lines<float>& logits);
  void attention(const LayerWeights& w, const Step& step);
  void project_input(const LayerWeights& w, const Step& step);
  void project_query(const LayerWeights& w, const Step& step);
  void write_cache(const Step& step);
  void attend(const LayerWeights& w, const Step& step);
  void attend_absorbed(const LayerWeights& w, const Step& step, int32_t from, int32_t end);
  void attend_tile(const LayerWeights& w, const Step& step, int32_t from, int32_t n);
  int64_t beyond_top_k(const SpTokens& tokens) const;
  bool takes_expanded(const LayerWeights& w, const Step& step, int32_t from, int32_t n) const;
  void attend_expanded(const LayerWeights& w, const Step& step, int32_t from, int32_t n);
  void index_key(const LayerWeights& w, const Step& step);
  void select(const Step& step);
  void feed_forward(const LayerWeights& w, const Step& step);
  void project_ffn(const LayerWeights& w, int32_t n);
  void mlp(const MlpWeights& w, int32_t n);
  Status pack();

  ModelConfig config_;
  Weights weights_;
  Backend backend_;
  HugeBuffer packed_;
  std::vector<float> rope_table_;
  int context_ = 0;
  bool dense_ = false;
  Attention attention_ = Attention::kInvariant;
  double attend_seconds_ = 0, select_seconds_ = 0;
  int64_t expanded_tokens_ = 0;
  Scratch s_;
  int64_t sparse_queries_ = 0;
};

}  // namespace sparrow
