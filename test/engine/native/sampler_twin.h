// The sampler again, slow and obvious: whole sorts, a map for every count, nothing skipped. What sampler.cc must equal.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "../../../gpu-node/native/scheduler/sampler.h"

namespace sparrow::test {

/// All that decides a draw, owned.
struct Draw {
  Sampling sampling;
  std::vector<int32_t> tokens;  // prompt, then sampled
  int32_t prompt = 0, allowed = 0;
  std::vector<int32_t> banned;
  std::vector<bool> mask;  // empty: all may be drawn

  uint64_t position() const { return tokens.size() - static_cast<size_t>(prompt); }
};

/// Logits as the draw sees them; -infinity where it may not go.
inline std::vector<double> adjusted(const std::vector<float>& logits, const Draw& d) {
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  std::vector<double> out;
  for (int32_t id = 0; id < d.allowed; id++) {
    double x = logits[static_cast<size_t>(id)];
    const auto end = d.tokens.end(), sampled = d.tokens.begin() + d.prompt;
    if (std::count(d.tokens.begin(), end, id) > 0) x = x > 0 ? x / d.sampling.repetition : x * d.sampling.repetition;
    const auto times = std::count(sampled, end, id);
    if (times > 0) x -= static_cast<double>(times) * d.sampling.frequency + d.sampling.presence;
    for (const auto& [biased, gain] : d.sampling.bias)
      if (biased == id) x += gain;
    if (!d.mask.empty() && !d.mask[static_cast<size_t>(id)]) x = kNever;
    out.push_back(x);
  }
  std::vector<double> without = out;
  for (const int32_t id : d.banned) without[static_cast<size_t>(id)] = kNever;
  return *std::max_element(without.begin(), without.end()) > kNever ? without : out;
}

/// The probability of every token, all processors applied; zeros where it may not be drawn.
inline std::vector<double> probabilities(const std::vector<double>& values, const Sampling& s) {
  const double top = *std::max_element(values.begin(), values.end());
  std::vector<double> p;
  for (const double x : values) p.push_back(std::exp((x - top) / s.temperature));
  for (double& x : p)
    if (x < s.min_p) x = 0;
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  if (s.top_k > 0)
    for (size_t i = static_cast<size_t>(s.top_k); i < order.size(); i++) p[order[i]] = 0;
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  double before = 0;  // mass of likelier tokens; a token goes when they hold top_p already
  for (size_t i = 0; i < order.size(); i++) {
    const double mass = p[order[i]];
    if (s.top_p < 1 && i > 0 && before >= s.top_p * total) p[order[i]] = 0;
    before += mass;
  }
  const double left = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= left;
  return p;
}

/// The token whose share of a line from 0 to 1 the draw hits; shares lie likeliest first where likelihood was sorted.
inline int32_t twin(const std::vector<float>& logits, const Draw& d) {
  const std::vector<double> p = probabilities(adjusted(logits, d), d.sampling);
  std::vector<int32_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  if (d.sampling.top_k > 0 || d.sampling.top_p < 1) {
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)]; });
  }
  uint64_t z = d.sampling.seed + (d.position() + 1) * 0x9E3779B97F4A7C15ull;  // splitmix64
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  const double point = static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  double share = 0;
  for (const int32_t id : order)
    if ((share += p[static_cast<size_t>(id)]) > point) return id;
  return order.front();
}

/// The engine's own sampler, from the same owned values.
inline int32_t drawn(const std::vector<float>& logits, const Draw& d) {
  History history;
  const size_t half = d.tokens.size() / 2;  // in two calls, as over two steps
  history.absorb(std::span(d.tokens).first(half), d.prompt);
  history.absorb(d.tokens, d.prompt);
  std::vector<uint32_t> words(d.mask.empty() ? 0 : (d.mask.size() + 31) / 32);
  for (size_t i = 0; i < d.mask.size(); i++) words[i / 32] |= uint32_t{d.mask[i]} << (i % 32);
  return sample(logits, {.sampling = d.sampling,
                         .allowed = d.allowed,
                         .position = d.position(),
                         .history = &history,
                         .banned = d.banned,
                         .mask = words});
}

}  // namespace sparrow::test
