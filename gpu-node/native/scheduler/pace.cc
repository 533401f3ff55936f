// Feels its way instead of computing: what a token costs depends on model, depth and batch, and a busy machine's clock
// is rough. A step that took too long makes the next one smaller, any other makes it a little larger. Where a single
// token of a deep prompt takes longer than its part, steps without any make up for it.
#include "pace.h"

#include <algorithm>

namespace sparrow {
namespace {

constexpr double kStretch = 2.5;  // a step with prefill against one without
constexpr double kGrow = 1.1, kShrink = 0.8;
constexpr double kLeast = 1;  // the prompt must get on
constexpr int32_t kMixedMax = 16;
constexpr double kOwedMax = 16;  // decode steps: a machine that stood still must not hold a prompt up for long
constexpr double kMedian = 1.1;  // by so much the estimate follows each step: outliers weigh no more than any other

}  // namespace

int32_t StepPace::prefill_tokens(int32_t decodes, int32_t most) const {
  if (decodes == 0) return most;
  if (decode_ == 0 || owed_ > 0 || mixed_ >= kMixedMax) return 0;
  return std::min(static_cast<int32_t>(tokens_), most);
}

void StepPace::observe(int32_t decodes, int32_t prefill, double seconds) {
  if (decodes == 0) return;
  if (prefill == 0) decode_ = decode_ == 0 ? seconds : seconds > decode_ ? decode_ * kMedian : decode_ / kMedian;
  owed_ = std::clamp(owed_ + seconds - kStretch * decode_, 0.0, kOwedMax * decode_);
  if (prefill == 0) {
    mixed_ = 0;
    return;
  }
  mixed_++;
  // A step that was smaller than it might have been does not show that more would fit.
  if (seconds > kStretch * decode_)
    tokens_ = std::max(kLeast, tokens_ * kShrink);
  else if (prefill >= static_cast<int32_t>(tokens_))
    tokens_ *= kGrow;
}

}  // namespace sparrow
