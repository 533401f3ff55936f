// Times the model itself: no schedule, no JavaScript. What `npm run bench:engine` prints.
#pragma once
#include <vector>

#include "../model/model.h"

namespace sparrow {

struct BenchPlan {
  int depth = 0, prefill = 512, decode = 64, repeats = 3;
  int batch = 0;  // over 0: that many sequences of `depth` tokens decode together; no prefill is timed
};

struct BenchTimes {
  std::vector<double> prefill, decode;  // seconds, one a repeat
};

/// Fills a KV memory of its own with `depth` random tokens, then times chunks of at most 512 tokens (logits of the last
/// one only) and greedy steps at that depth (of many sequences: random tokens), going back after each. Error:
/// context_too_long, engine_failed.
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

/// What this machine can do with `threads` threads, best of some tries.
struct Limits {
  double read_bytes = 0;  // bytes a second, streaming from memory
  double bf16_flops = 0;  // vdpbf16ps; 0 where the processor lacks it
};
Limits measure_limits(int threads);

}  // namespace sparrow
