// Logits to a token. Depends on logits, settings, the sequence's own tokens and (seed, position) alone: never on the
// rest of the batch.
#pragma once
#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace sparrow {

struct Sampling {
  double temperature = 1, top_p = 1;
  uint64_t seed = 0;
  double min_p = 0;                                   // least probability, as a share of the likeliest token's
  double frequency = 0, presence = 0;                 // penalties on tokens sampled before
  double repetition = 1;                              // divisor of positive logits, factor of others: prompt tokens too
  int32_t top_k = 0;                                  // 0: all
  std::vector<std::pair<int32_t, double>> bias = {};  // token, what its logit gains

  bool penalises() const { return frequency != 0 || presence != 0 || repetition != 1; }
};

/// Which tokens a sequence holds, and how often each was sampled.
class History {
 public:
  /// Takes in those of `tokens` that it has not seen yet; the first `prompt` of them were not sampled.
  void absorb(std::span<const int32_t> tokens, int32_t prompt);
  const std::unordered_map<int32_t, int32_t>& times_sampled() const { return times_; }

 private:
  size_t absorbed_ = 0;
  std::unordered_map<int32_t, int32_t> times_;
};

struct SampleInput {
  const Sampling& sampling;
  int32_t allowed = 0;                   // ids from here on are padding rows of the embedding
  uint64_t position = 0;                 // tokens sampled before
  const History* history = nullptr;      // needed where the settings penalise
  std::span<const int32_t> banned = {};  // not drawn unless nothing else is left
  std::span<const uint32_t> mask = {};   // bit i % 32 of word i / 32: token i may be drawn; empty: all may
};

constexpr int32_t kNotFinite = -1, kNothingAllowed = -2;

/// The token; kNotFinite when a logit is NaN or none is finite, kNothingAllowed when the mask leaves none. In order:
/// penalties, bias, mask and bans; temperature (0 takes the largest, lowest id first), min_p, top_k, top_p, draw.
int32_t sample(std::span<const float> logits, const SampleInput& in);

}  // namespace sparrow
