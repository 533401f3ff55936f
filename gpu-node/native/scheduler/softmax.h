// Logits to weights e^((logit - top) / temperature), a block at a time: each sequence of a step is sampled by one
// thread, from a vocabulary of up to 129,280.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace sparrow {

constexpr size_t kSoftmaxBlock = 512;  // values

struct Softmax {
  double top = 0;          // the largest logit, finite
  double temperature = 1;  // above 0
  double least = 0;        // weights below are none

  double sharpness() const { return std::min(1 / temperature, 1e300); }  // infinity times 0 would be no number
};

/// One block's weights, the largest logit's 1; none (0) below 2^-1021 too.
using Weights = std::array<double, kSoftmaxBlock>;

/// Values are float or double, up to kSoftmaxBlock of them.
template <class T>
void weigh(const Softmax& softmax, std::span<const T> values, Weights& weights);

/// Sum of the weights of any number of values.
template <class T>
double weigh_all(const Softmax& softmax, std::span<const T> values);

/// The largest of some values, minus infinity of none; NaN where there is one.
template <class T>
T most(std::span<const T> values);

/// The largest one's place, the first among equals; -1 when one is NaN or none is finite.
template <class T>
int32_t largest(std::span<const T> values);

/// Calls body(first, block) for each block of the values.
template <class T, class Body>
void each_block(std::span<const T> values, const Body& body) {
  for (size_t first = 0; first < values.size(); first += kSoftmaxBlock)
    body(first, values.subspan(first, std::min(kSoftmaxBlock, values.size() - first)));
}

}  // namespace sparrow
