// The k-th largest score by partial sort of a copy, then one ascending pass that takes all above it and the first ties.
#include "select.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

namespace sparrow {

int32_t select_top_k(float* scores, int64_t length, int32_t k, int32_t* chosen) {
  if (length <= k) {
    std::iota(chosen, chosen + length, 0);
    return static_cast<int32_t>(length);
  }
  for (int64_t s = 0; s < length; s++) {
    if (std::isnan(scores[s])) scores[s] = -std::numeric_limits<float>::infinity();
  }
  thread_local std::vector<float> copy;
  copy.assign(scores, scores + length);
  std::nth_element(copy.begin(), copy.begin() + (k - 1), copy.end(), std::greater<>());
  const float kth = copy[k - 1];
  int64_t ties = k - std::count_if(copy.begin(), copy.begin() + k, [kth](float v) { return v > kth; });
  int32_t out = 0;
  for (int64_t s = 0; s < length; s++) {
    if (scores[s] > kth || (scores[s] == kth && ties-- > 0)) chosen[out++] = static_cast<int32_t>(s);
  }
  return out;
}

}  // namespace sparrow
