// Batches by hand, as the scheduler would build them.
#include "bench.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>

#include "../model/crossover.h"
#include "../scheduler/sampler.h"

namespace sparrow {
namespace {

constexpr int kChunk = 512;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Runner {
 public:
  Runner(Model& model, int sequences, int length)
      : model_(model), pages_((length + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS) {
    kv_ = model.make_kv(pages_ * sequences);
    tables_.resize(static_cast<size_t>(sequences));
    for (int s = 0; s < sequences; s++) {
      tables_[static_cast<size_t>(s)].resize(static_cast<size_t>(pages_));
      std::iota(tables_[static_cast<size_t>(s)].begin(), tables_[static_cast<size_t>(s)].end(), s * pages_);
    }
  }

  bool ready() const { return kv_.bytes.data() != nullptr; }

  /// Tokens [from, from + count) of sequence s, in chunks; the last one's logits.
  void prefill(size_t s, int from, int count) {
    for (int at = 0; at < count; at += kChunk) {
      Batch batch;
      const int n = std::min(kChunk, count - at);
      for (int i = 0; i < n; i++) add(batch, s, from + at + i, random_token());
      if (at + n == count) batch.logit_rows.push_back(n - 1);
      model_.forward(batch, kv_, logits_, nullptr);
    }
  }

  /// One step of every sequence at `position`, the likeliest token next.
  void step(int position, std::vector<int32_t>& ids) {
    Batch batch;
    for (size_t s = 0; s < ids.size(); s++) {
      add(batch, s, position, ids[s]);
      batch.logit_rows.push_back(static_cast<int32_t>(s));
    }
    model_.forward(batch, kv_, logits_, nullptr);
    // Sequences that come to say the same would share their experts; llama-batched-bench feeds random tokens too.
    if (ids.size() > 1)
      std::generate(ids.begin(), ids.end(), [this] { return random_token(); });
    else
      ids[0] = sample_first({.temperature = 0}, 0);
  }

  /// Seconds of one draw from the first sequence's logits, in the mean of a few.
  double time_sampling(const Sampling& sampling) {
    constexpr int kDraws = 8;
    const double at = seconds();
    for (int i = 0; i < kDraws; i++) sample_first(sampling, static_cast<uint64_t>(i));
    return (seconds() - at) / kDraws;
  }

 private:
  int32_t sample_first(const Sampling& sampling, uint64_t position) const {
    const int32_t vocab = model_.config().vocab_size;
    const auto row = std::span(logits_).first(static_cast<size_t>(vocab));
    return std::max(0, sample(row, {.sampling = sampling, .allowed = vocab, .position = position}));
  }

  void add(Batch& batch, size_t s, int position, int32_t id) const {
    batch.ids.push_back(id);
    batch.positions.push_back(position);
    batch.tables.push_back(tables_[s].data());
  }

  int32_t random_token() {
    state_ = state_ * 1664525u + 1013904223u;
    return static_cast<int32_t>(state_ % static_cast<uint32_t>(model_.config().vocab_size));
  }

  Model& model_;
  int pages_;
  KvMemory kv_;
  std::vector<std::vector<int32_t>> tables_;
  Lines<float> logits_;
  uint32_t state_ = 7;
};

}  // namespace

Status bench(Model& model, const BenchPlan& plan, BenchTimes& out) {
  const int sequences = std::max(1, plan.batch), length = plan.depth + std::max(plan.prefill, plan.decode) + 1;
  if (length > model.context())
    return error(Code::kContextTooLong, "depth: " + std::to_string(length) + " positions are needed, the context has " +
                                            std::to_string(model.context()));
  Runner run(model, sequences, length);
  if (!run.ready()) return error(Code::kEngineFailed, "no memory for the KV pages of this depth");
  for (int s = 0; s < sequences && plan.depth > 0; s++) run.prefill(static_cast<size_t>(s), 0, plan.depth);
  const int start = std::max(plan.depth, 1);
  if (plan.depth == 0) run.prefill(0, 0, 1);
  std::optional<LimitMeter> meter;
  if (plan.threads > 0) meter.emplace(plan.threads, model.backend().isa);
  const auto steps = [&](bool dense) {
    model.attend_to_all(dense);
    std::vector<int32_t> ids(static_cast<size_t>(sequences));
    std::iota(ids.begin(), ids.end(), 2);
    const double at = seconds();
    for (int i = 0; i < plan.decode; i++) run.step(start + i, ids);
    return seconds() - at;
  };
  const bool dense_before = model.attends_to_all();
  for (int r = 0; r < plan.repeats; r++) {
    const Limits before = meter ? meter->sample() : Limits{};
    if (plan.batch == 0) {
      const double at = seconds();
      run.prefill(0, plan.depth, plan.prefill);
      out.prefill.push_back(seconds() - at);
    }
    const double attended = model.attend_seconds(), selected = model.select_seconds();
    out.decode.push_back(steps(dense_before));
    out.attend.push_back(model.attend_seconds() - attended);
    out.select.push_back(model.select_seconds() - selected);
    out.greedy.push_back(run.time_sampling({.temperature = 0}));
    out.drawn.push_back(run.time_sampling({.temperature = 1}));
    out.nucleus.push_back(run.time_sampling({.temperature = 1, .top_p = 0.95}));
    if (meter) {
      const Limits after = meter->sample();
      out.limits.push_back({(before.read_bytes + after.read_bytes) / 2, (before.bf16_flops + after.bf16_flops) / 2});
    }
    if (plan.dense) out.dense.push_back(steps(true));
    model.attend_to_all(dense_before);
  }
  return ok_status();
}

Status crossover(Model& model, const CrossoverPlan& plan, CrossoverTimes& out) {
  const int length = plan.depth + plan.tokens;
  if (plan.tokens < kExpandedTokensMin || plan.tokens > kChunk)
    return error(Code::kBadArgument,
                 "tokens: from " + std::to_string(kExpandedTokensMin) + " to " + std::to_string(kChunk));
  if (length > model.context())
    return error(Code::kContextTooLong, "depth: " + std::to_string(length) + " positions are needed, the context has " +
                                            std::to_string(model.context()));
  Runner run(model, 1, length);
  if (!run.ready()) return error(Code::kEngineFailed, "no memory for the KV pages of this depth");
  if (plan.depth > 0) run.prefill(0, 0, plan.depth);
  const int64_t before = model.expanded_tokens();
  const auto measure = [&](Attention form) {
    model.attend_as(form);
    const double at = model.attend_seconds();
    run.prefill(0, plan.depth, plan.tokens);
    (form == Attention::kExpanded ? out.expanded : out.absorbed).push_back(model.attend_seconds() - at);
  };
  for (int r = 0; r < plan.rounds; r++) {
    measure(r % 2 ? Attention::kExpanded : Attention::kInvariant);
    measure(r % 2 ? Attention::kInvariant : Attention::kExpanded);
  }
  model.attend_as(Attention::kFastest);
  if (model.expanded_tokens() - before != int64_t{plan.rounds} * plan.tokens * model.config().num_hidden_layers)
    return error(Code::kBadArgument, "attention: open with fastest, on a backend that has the expanded form");
  const ModelConfig& c = model.config();
  const AttentionShape shape = {c.kv_lora_rank, c.qk_rope_head_dim, c.qk_nope_head_dim, c.v_head_dim};
  const bool sparse = c.has_indexer && length > c.index_topk;
  const AttentionPiece piece = {plan.tokens, plan.depth, sparse ? c.index_topk : 0};
  out.absorbed_cost = absorbed_cost(shape, piece);
  out.expanded_cost = expanded_cost(shape, piece);
  return ok_status();
}

}  // namespace sparrow
