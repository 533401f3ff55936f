// Softmax in double; top_k and top_p keep the likeliest tokens, lowest id first among equals; a counter-based draw
// chooses.
#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sparrow {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// splitmix64 of (seed, position): uniform in [0, 1) with 53 bits.
double uniform(uint64_t seed, uint64_t position) {
  uint64_t z = seed + (position + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/// The largest, lowest id first; -1 when one is NaN or none is finite.
template <class T>
int32_t largest(std::span<const T> values) {
  int32_t best = -1;
  for (size_t i = 0; i < values.size(); i++) {
    if (std::isnan(values[i])) return -1;
    if (best < 0 || values[i] > values[static_cast<size_t>(best)]) best = static_cast<int32_t>(i);
  }
  return best >= 0 && std::isfinite(values[static_cast<size_t>(best)]) ? best : -1;
}

void penalise(std::span<double> values, const Sampling& sampling, const History& history) {
  for (const auto& [id, times] : history.times_sampled()) {
    if (static_cast<size_t>(id) >= values.size()) continue;
    double& value = values[static_cast<size_t>(id)];
    value = value > 0 ? value / sampling.repetition : value * sampling.repetition;
    if (times > 0) value -= times * sampling.frequency + sampling.presence;
  }
}

void mask_out(std::span<double> values, std::span<const uint32_t> mask) {
  for (size_t i = 0; i < values.size(); i++) {
    const bool on = i / 32 < mask.size() && (mask[i / 32] >> (i % 32) & 1);
    if (!on) values[i] = kNever;
  }
}

/// A ban that leaves nothing is no ban: a grammar at its end allows nothing but the end.
void ban(std::span<double> values, std::span<const int32_t> banned) {
  std::vector<std::pair<size_t, double>> before;
  for (const int32_t id : banned) {
    const size_t i = static_cast<size_t>(id);
    if (i < values.size()) before.emplace_back(i, std::exchange(values[i], kNever));
  }
  if (largest<double>(values) >= 0) return;
  for (auto undo = before.rbegin(); undo != before.rend(); undo++) values[undo->first] = undo->second;
}

/// Likeliest first into the front of `ids`: at most `top_k` (0: any number) and as few as hold `top_p` of the mass that
/// top_k leaves. Returns the mass kept. A heap, since a few tokens out of a large vocabulary are the usual outcome.
double keep_likeliest(std::vector<int32_t>& ids, std::span<const double> p, const Sampling& sampling, double total) {
  const auto mass = [&](int32_t id) { return p[static_cast<size_t>(id)]; };
  const auto less = [&](int32_t a, int32_t b) { return mass(a) < mass(b) || (mass(a) == mass(b) && a > b); };
  std::make_heap(ids.begin(), ids.end(), less);
  std::vector<int32_t> kept;
  const auto pop = [&] {
    std::pop_heap(ids.begin(), ids.end(), less);
    kept.push_back(ids.back());
    ids.pop_back();
    return mass(kept.back());
  };
  if (sampling.top_k > 0) {
    total = 0;
    while (!ids.empty() && kept.size() < static_cast<size_t>(sampling.top_k)) total += pop();
    ids = std::exchange(kept, {});
    if (sampling.top_p >= 1) return total;
    // The kept ones are sorted already, which is a heap from the largest on.
  }
  double sum = 0;
  while (!ids.empty() && (kept.empty() || sum < sampling.top_p * total)) sum += pop();
  ids = std::move(kept);
  return sum;
}

int32_t draw(std::span<double> values, int32_t best, const SampleInput& in) {
  const Sampling& sampling = in.sampling;
  const double top = values[static_cast<size_t>(best)];
  thread_local std::vector<int32_t> ids;
  ids.clear();
  double total = 0;
  for (size_t i = 0; i < values.size(); i++) {
    values[i] = std::exp((values[i] - top) / sampling.temperature);
    if (!(values[i] > 0) || values[i] < sampling.min_p) continue;  // the best one's is 1
    total += values[i];
    ids.push_back(static_cast<int32_t>(i));
  }
  if (sampling.top_k > 0 || sampling.top_p < 1) total = keep_likeliest(ids, values, sampling, total);
  double left = uniform(sampling.seed, in.position) * total;
  for (const int32_t id : ids) {
    left -= values[static_cast<size_t>(id)];
    if (left < 0) return id;
  }
  return best;
}

}  // namespace

void History::absorb(std::span<const int32_t> tokens, int32_t prompt) {
  for (; absorbed_ < tokens.size(); absorbed_++) times_[tokens[absorbed_]] += absorbed_ >= static_cast<size_t>(prompt);
}

int32_t sample(std::span<const float> logits, const SampleInput& in) {
  const Sampling& sampling = in.sampling;
  const auto own = logits.first(std::min(logits.size(), static_cast<size_t>(std::max(in.allowed, 0))));
  int32_t best = largest(own);
  if (best < 0) return kNotFinite;
  const bool penalises = in.history && sampling.penalises();
  const bool adjusts = penalises || !sampling.bias.empty() || !in.mask.empty() || !in.banned.empty();
  if (!adjusts && sampling.temperature <= 0) return best;

  thread_local std::vector<double> values;
  values.assign(own.begin(), own.end());
  if (penalises) penalise(values, sampling, *in.history);
  for (const auto& [id, gain] : sampling.bias)
    if (static_cast<size_t>(id) < values.size()) values[static_cast<size_t>(id)] += gain;
  if (!in.mask.empty()) mask_out(values, in.mask);
  if (!in.banned.empty()) ban(values, in.banned);
  if (adjusts) best = largest<double>(values);
  if (best < 0) return kNothingAllowed;
  return sampling.temperature <= 0 ? best : draw(values, best, in);
}

}  // namespace sparrow
