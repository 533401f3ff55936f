// How much prefill a step may hold beside decoding sequences, from what steps took before. Changes how a prompt is cut,
// never what comes out.
#pragma once
#include <cstdint>

namespace sparrow {

class StepPace {
 public:
  /// Tokens for a step in which `decodes` sequences decode: `most` where none does, else so many that the step takes
  /// at most 2.5 times as long as without. 0 where the steps before took more than that, until the mean is right, and
  /// now and then: such a step shows what decoding alone takes.
  int32_t prefill_tokens(int32_t decodes, int32_t most) const;

  /// What a step took.
  void observe(int32_t decodes, int32_t prefill, double seconds);

 private:
  double decode_ = 0;   // seconds of a step that only decodes; 0: not known yet
  double tokens_ = 32;  // of a prompt beside decoding sequences
  double owed_ = 0;     // seconds that steps took beyond their part
  int32_t mixed_ = 0;   // steps since decoding was last seen alone
};

}  // namespace sparrow
