// Softmax in double; top_p keeps the smallest set of likeliest tokens whose mass reaches it; a counter-based draw
// chooses.
#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace sparrow {
namespace {

/// splitmix64 of (seed, position): uniform in [0, 1) with 53 bits.
double uniform(uint64_t seed, uint64_t position) {
  uint64_t z = seed + (position + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

}  // namespace

int32_t sample(std::span<const float> logits, int32_t allowed, const Sampling& sampling, uint64_t position) {
  const size_t n = std::min(logits.size(), static_cast<size_t>(allowed));
  int32_t best = -1;
  for (size_t i = 0; i < n; i++) {
    if (std::isnan(logits[i])) return -1;
    if (best < 0 || logits[i] > logits[static_cast<size_t>(best)]) best = static_cast<int32_t>(i);
  }
  if (best < 0 || !std::isfinite(logits[static_cast<size_t>(best)])) return -1;
  if (sampling.temperature <= 0) return best;

  const double top = logits[static_cast<size_t>(best)];
  std::vector<double> p(n);
  double total = 0;
  for (size_t i = 0; i < n; i++) total += p[i] = std::exp((logits[i] - top) / sampling.temperature);
  std::vector<int32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (sampling.top_p < 1) {
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)]; });
    double kept = 0;
    size_t count = 0;
    while (count < n && (count == 0 || kept < sampling.top_p * total)) kept += p[static_cast<size_t>(order[count++])];
    order.resize(count);
    total = kept;
  }
  double left = uniform(sampling.seed, position) * total;
  for (const int32_t id : order) {
    left -= p[static_cast<size_t>(id)];
    if (left < 0) return id;
  }
  return best;
}

}  // namespace sparrow
