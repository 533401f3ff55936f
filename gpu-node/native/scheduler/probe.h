// A look inside the model for tests and tools: logits and named intermediates, outside any schedule.
#pragma once
#include <string>
#include <vector>

#include "../model/model.h"

namespace sparrow {

struct ProbeTap {
  int layer;
  std::string name;
  int64_t columns;
  std::vector<float> data;  // (tokens so far, columns), chunks appended
};

struct ProbeSequence {
  std::vector<int32_t> tokens;
  int32_t chunk;              // tokens it adds to a step
  std::vector<float> logits;  // out: (tokens, vocab), or of the last token alone
};

/// Runs every sequence from its start on pages of its own, all of them in each step until they end. `taps` may be null;
/// with more than one sequence its rows are those of the steps, one after another.
Status evaluate(Model& model, std::vector<ProbeSequence>& sequences, bool last_only, std::vector<ProbeTap>* taps);

}  // namespace sparrow
