// Multiply-adds of both forms, weighed by what `npm run bench:crossover` measured for one.
#include "crossover.h"

#include <algorithm>

namespace sparrow {
namespace {
constexpr double kAbsorbed = 1.0, kExpanded = 1.1, kProduct = 0.46;
}

double absorbed_cost(const AttentionShape& s, const AttentionPiece& p) {
  double keys = 0;
  for (int64_t t = 0; t < p.tokens; t++) {
    const int64_t seen = p.first + t + 1;
    keys += static_cast<double>(p.top_k ? std::min(seen, p.top_k) : seen);
  }
  return keys * static_cast<double>(2 * s.rank + s.rope) * kAbsorbed +
         static_cast<double>(p.tokens * s.rank * (s.nope + s.v)) * kProduct;
}

double expanded_cost(const AttentionShape& s, const AttentionPiece& p) {
  const int64_t keys = p.first + p.tokens;
  const double seen = static_cast<double>(p.tokens) * static_cast<double>(p.first + 1 + keys) / 2;
  return seen * static_cast<double>(s.nope + s.rope + s.v) * kExpanded +
         static_cast<double>(keys * s.rank * (s.nope + s.v)) * kProduct;
}

}  // namespace sparrow
