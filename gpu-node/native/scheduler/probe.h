// A look inside the model for tests: logits of every position and named intermediates, outside any schedule.
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

struct Probe {
  std::vector<float> logits;  // (tokens, vocab)
  std::vector<ProbeTap> taps;
};

/// Runs `tokens` through the model in chunks of `chunk` on pages of its own.
Status evaluate(Model& model, const std::vector<int32_t>& tokens, int32_t chunk, bool with_taps, Probe& out);

}  // namespace sparrow
