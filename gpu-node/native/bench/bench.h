// Times the model itself: no schedule, no JavaScript. What `npm run bench:engine` prints.
#pragma once
#include <memory>
#include <vector>

#include "../huge_buffer.h"
#include "../kernels/cpu/bf16/kernels.h"
#include "../kernels/cpu/threads.h"
#include "../model/model.h"

namespace sparrow {

struct BenchPlan {
  int depth = 0, prefill = 512, decode = 64, repeats = 3;
  int batch = 0;       // over 0: that many sequences of `depth` tokens decode together; no prefill is timed
  int threads = 0;     // over 0: the machine's limits with so many threads are taken around each repeat
  bool dense = false;  // each repeat also decodes attending to every position, from the same cache
};

/// What this machine can do with `threads` threads.
struct Limits {
  double read_bytes = 0;  // bytes a second, streaming from memory
  double bf16_flops = 0;  // vdpbf16ps; 0 where the processor lacks it
};

/// Takes the limits as a kernel would meet them: all threads at once, memory on huge pages. A sample takes some 10 ms.
class LimitMeter {
 public:
  /// With the loops of `isa`; those that `auto` would take where it has none of its own.
  LimitMeter(int threads, const std::string& isa);
  Limits sample() const;

 private:
  const SpBf16Kernels* kernels_;  // null: no loops for this processor, and no limits
  std::unique_ptr<Threads> threads_;
  HugeBuffer memory_;
};

struct BenchTimes {
  std::vector<double> prefill, decode, dense;  // seconds, one a repeat
  std::vector<double> attend, select;          // of `decode`: in attention, and in the indexer's scores and choice
  std::vector<double> greedy, drawn, nucleus;  // a token sampled: temperature 0, 1, and 1 with top_p 0.95
  std::vector<Limits> limits;                  // of each repeat: the mean of before and after
};

/// Fills a KV memory of its own with `depth` random tokens, then times chunks of at most 512 tokens (logits of the last
/// one only) and greedy steps at that depth (of many sequences: random tokens), going back after each; and draws from
/// the last logits. Error: context_too_long, engine_failed.
Status bench(Model& model, const BenchPlan& plan, BenchTimes& out);

/// `tokens` tokens behind `depth` others, in absorbed and in expanded form by turns.
struct CrossoverPlan {
  int depth = 0, tokens = 256, rounds = 5;
};

struct CrossoverTimes {
  std::vector<double> absorbed, expanded;       // seconds in attention alone, one a round
  double absorbed_cost = 0, expanded_cost = 0;  // what crossover.h predicts
};

/// Errors: context_too_long, engine_failed; bad_argument when the model was not opened with attention `fastest`.
Status crossover(Model& model, const CrossoverPlan& plan, CrossoverTimes& out);

}  // namespace sparrow
