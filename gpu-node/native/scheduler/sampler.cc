// Softmax in double; top_k and top_p keep the likeliest tokens, lowest id first among equals; a counter-based draw
// chooses.
#include "sampler.h"

#include <cmath>
#include <limits>

#include "ranking.h"

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

void penalise(std::span<double> values, const Sampling& sampling, const History& history) {
  for (const auto& [id, times] : history.times_sampled()) {
    if (static_cast<size_t>(id) >= values.size()) continue;
    double& value = values[static_cast<size_t>(id)];
    value = value > 0 ? value / sampling.repetition : value * sampling.repetition;
    if (times > 0) value -= times * sampling.frequency + sampling.presence;
  }
}

void mask_out(std::span<double> values, std::span<const uint32_t> mask) {
  for (size_t first = 0; first < values.size(); first += 32) {
    const uint32_t word = first / 32 < mask.size() ? mask[first / 32] : 0;
    if (word == ~0u) continue;
    for (size_t i = first; i < std::min(first + 32, values.size()); i++)
      if (!(word >> i % 32 & 1)) values[i] = kNever;
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

/// The likeliest first where only some of them are kept.
int32_t draw_likeliest(std::span<const double> values, const Softmax& softmax, const SampleInput& in) {
  const Sampling& sampling = in.sampling;
  Ranking ranking(values, softmax);
  Likeliest kept = sampling.top_k > 0 ? ranking.first(sampling.top_k) : ranking.all();
  if (sampling.top_p < 1) {
    const Likeliest fewer = ranking.reaching(sampling.top_p * kept.weight);
    if (fewer.count < kept.count) kept = fewer;
  }
  return ranking.beyond(uniform(sampling.seed, in.position) * kept.weight, kept.count);
}

/// In order of ids: sums of blocks tell where to look.
int32_t draw_any(std::span<const double> values, const Softmax& softmax, const SampleInput& in) {
  thread_local std::vector<double> sums;
  sums.clear();
  Weights weights;
  double total = 0;
  each_block(values, [&](size_t, std::span<const double> block) {
    sums.push_back(weigh_all(softmax, block));
    total += sums.back();
  });
  double left = uniform(in.sampling.seed, in.position) * total;
  int32_t drawn = -1;
  each_block(values, [&](size_t first, std::span<const double> block) {
    if (drawn >= 0) return;
    const double sum = sums[first / kSoftmaxBlock];
    if (left >= sum) return void(left -= sum);
    weigh(softmax, block, weights);
    for (size_t i = 0; i < block.size() && drawn < 0; i++) {
      left -= weights[i];
      if (left < 0) drawn = static_cast<int32_t>(first + i);
    }
  });
  return drawn;
}

int32_t draw(std::span<const double> values, int32_t best, const SampleInput& in) {
  const Sampling& sampling = in.sampling;
  const Softmax softmax = {values[static_cast<size_t>(best)], sampling.temperature, sampling.min_p};
  const bool some = sampling.top_k > 0 || sampling.top_p < 1;
  const int32_t drawn = some ? draw_likeliest(values, softmax, in) : draw_any(values, softmax, in);
  return drawn >= 0 ? drawn : best;  // rounding may leave a rest of nothing
}

}  // namespace

void History::absorb(std::span<const int32_t> tokens, int32_t prompt) {
  for (; absorbed_ < tokens.size(); absorbed_++) times_[tokens[absorbed_]] += absorbed_ >= static_cast<size_t>(prompt);
}

int32_t sample(std::span<const float> logits, const SampleInput& in) {
  const Sampling& sampling = in.sampling;
  const auto own = logits.first(std::min(logits.size(), static_cast<size_t>(std::max(in.allowed, 0))));
  int32_t best = largest<float>(own);
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
