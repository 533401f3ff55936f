// Log-probabilities of a sampled token and of the likeliest ones, from the model's own distribution: before penalties,
// bias, mask and temperature.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sparrow {

struct TokenLogprob {
  int32_t id = -1;
  double logprob = 0;
};

/// That of `token`, then those of the `top` likeliest, likeliest first, lowest id first among equals. `allowed` as in
/// SampleInput; `token` is one of them.
std::vector<TokenLogprob> logprobs_of(std::span<const float> logits, int32_t allowed, int32_t token, int32_t top);

}  // namespace sparrow
