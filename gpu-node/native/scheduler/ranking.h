// Tokens by likelihood without sorting a vocabulary: they fall into short intervals of the logit, whose counts and
// weights are summed up, and only an interval in which something is decided is sorted.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "softmax.h"

namespace sparrow {

/// So many of the likeliest tokens, and the sum of their weights.
struct Likeliest {
  int64_t count = 0;
  double weight = 0;
};

/// Equals go by id, the lowest first; tokens without weight do not take part.
class Ranking {
 public:
  /// `values` must outlive it.
  Ranking(std::span<const double> values, const Softmax& softmax);

  Likeliest all() const;
  /// The first `count`, or all where there are fewer.
  Likeliest first(int64_t count);
  /// As few as weigh `weight` together, at least one.
  Likeliest reaching(double weight);
  /// The token of the first `among` with which their sum goes beyond `weight`; -1 when none is.
  int32_t beyond(double weight, int64_t among);

 private:
  struct Token {
    int32_t id;
    double value, weight;
  };
  const std::vector<Token>& sorted(int32_t interval);

  std::span<const double> values_;
  Softmax softmax_;
  std::vector<Likeliest> intervals_;
  std::vector<Token> tokens_;  // of the interval sorted last
  int32_t sorted_ = -1;
};

}  // namespace sparrow
