// Log-softmax in double; the likeliest are kept by insertion, since there are twenty at most.
#include "logprobs.h"

#include <algorithm>
#include <cmath>

#include "softmax.h"

namespace sparrow {

std::vector<TokenLogprob> logprobs_of(std::span<const float> logits, int32_t allowed, int32_t token, int32_t top) {
  const auto own = logits.first(std::min(logits.size(), static_cast<size_t>(std::max(allowed, 0))));
  const int32_t likeliest = largest<float>(own);
  const double highest = likeliest < 0 ? NAN : own[static_cast<size_t>(likeliest)];
  const double shift = highest + std::log(weigh_all<float>({.top = highest}, own));

  std::vector<TokenLogprob> out{{token, own[static_cast<size_t>(token)] - shift}};
  if (top <= 0) return out;
  std::vector<int32_t> best;
  const auto logit = [&](int32_t id) { return own[static_cast<size_t>(id)]; };
  each_block(own, [&](size_t first, std::span<const float> block) {
    const auto full = [&] { return best.size() == static_cast<size_t>(top); };
    if (full() && most(block) <= logit(best.back())) return;
    for (size_t i = first; i < first + block.size(); i++) {
      if (full() && own[i] <= logit(best.back())) continue;
      if (full()) best.pop_back();
      const auto before = std::upper_bound(best.begin(), best.end(), own[i],
                                           [&](float value, int32_t id) { return value > logit(id); });
      best.insert(before, static_cast<int32_t>(i));
    }
  });
  for (const int32_t id : best) out.push_back({id, logit(id) - shift});
  return out;
}

}  // namespace sparrow
