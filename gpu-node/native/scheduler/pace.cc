// Moving averages; one outlier (a machine that slept) counts at most kOutlier times what was known.
#include "pace.h"

#include <algorithm>

namespace sparrow {
namespace {

constexpr double kStretch = 2, kNewest = 0.2, kOutlier = 4;
constexpr int32_t kLeast = 8;  // fewer tokens cost about as much, and the prompt must get on
constexpr int32_t kMixedMax = 32;

double mix(double old, double seen) {
  return old == 0 ? seen : old + kNewest * (std::min(seen, kOutlier * old) - old);
}

}  // namespace

int32_t StepPace::prefill_tokens(int32_t decodes, int32_t most) const {
  if (decodes == 0) return most;
  if (decode_ == 0 || mixed_ >= kMixedMax) return 0;
  const double fits = token_ == 0 ? 0 : (kStretch - 1) * decode_ / token_;
  return std::clamp(static_cast<int32_t>(std::min(fits, 1e6)), std::min(kLeast, most), most);
}

void StepPace::observe(int32_t decodes, int32_t prefill, double seconds) {
  if (decodes > 0 && prefill == 0) {
    decode_ = mix(decode_, seconds);
    mixed_ = 0;
  } else if (decodes > 0 && prefill > 0) {
    token_ = mix(token_, std::max(seconds - decode_, 1e-3 * decode_) / prefill);
    mixed_++;
  }
}

}  // namespace sparrow
