// Logits to a token. Depends on logits, settings and (seed, position) alone: never on the rest of the batch.
#pragma once
#include <cstdint>
#include <span>

namespace sparrow {

struct Sampling {
  double temperature = 1, top_p = 1;
  uint64_t seed = 0;
};

/// The token, or -1 when a logit is NaN or none is finite. Temperature 0 takes the largest, lowest id first. `position`
/// counts the tokens sampled before. Ids from `allowed` on are padding rows of the embedding and are never drawn.
int32_t sample(std::span<const float> logits, int32_t allowed, const Sampling& sampling, uint64_t position);

}  // namespace sparrow
