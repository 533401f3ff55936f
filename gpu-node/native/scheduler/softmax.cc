// e^x = 2^n e^r with |r| <= ln 2 / 2: a polynomial with coefficients 1 / k!, whose remainder at degree 13 is below
// 1e-17.
#include "softmax.h"

#include <bit>
#include <cmath>
#include <limits>

#include "levels.h"

namespace sparrow {
namespace {

#define SP_INLINE static inline __attribute__((always_inline))

constexpr double kLeastPower = -708, kLeastWeight = 0x1p-1021;  // e^-708 is less, and a normal number
constexpr double kRound = 0x1.8p52;  // added to a small number, it leaves the whole number in the low bits
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0x1.62e42fefa38p-1, kLn2Rest = 0x1.ef35793c7673p-45;  // the first part times n is exact
constexpr double kOverFactorial[] = {
    1,          1,           1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
    1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};

template <bool fused>
SP_INLINE double add_product(double a, double b, double c) {
  return fused ? __builtin_fma(a, b, c) : a * b + c;
}

template <bool fused>
SP_INLINE double power(double x) {
  x = x < kLeastPower ? kLeastPower : x;
  const double rounded = add_product<fused>(x, kLog2E, kRound), n = rounded - kRound;
  const double r = add_product<fused>(n, -kLn2Rest, add_product<fused>(n, -kLn2, x));
  double p = kOverFactorial[13];
#pragma GCC unroll 13
  for (int k = 12; k >= 0; k--) p = add_product<fused>(p, r, kOverFactorial[k]);
  return std::bit_cast<double>(std::bit_cast<uint64_t>(p) + (std::bit_cast<uint64_t>(rounded) << 52));
}

constexpr size_t kLanes = 16;

/// body(lane, i) for each i < count: what lanes hold does not depend on how they are computed.
template <class Body>
SP_INLINE void each_lane(size_t count, const Body& body) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t l = 0; l < kLanes; l++) body(l, i + l);
  }
  for (size_t l = 0; i + l < count; l++) body(l, i + l);
}

double sum(const double* values, size_t count) {
  double out;
  double* const to = &out;
  run_widest(SP_LOOP() {
    double lanes[kLanes] = {}, sum = 0;
    each_lane(
        count, [&](size_t l, size_t i) __attribute__((always_inline)) { lanes[l] += values[i]; });
    for (const double lane : lanes) sum += lane;
    *to = sum;
  });
  return out;
}

template <class T>
using Whole = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

/// A whole number in the order of the values; a NaN's is beyond those of the infinities. Its own inverse.
template <class T>
SP_INLINE Whole<T> order(T value) {
  const auto bits = std::bit_cast<Whole<T>>(value);
  return bits ^ ((bits >> (8 * sizeof(T) - 1)) & std::numeric_limits<Whole<T>>::max());
}

}  // namespace

template <class T>
void weigh(const Softmax& softmax, std::span<const T> values, Weights& weights) {
  const double top = softmax.top, sharpness = softmax.sharpness(), least = std::max(softmax.least, kLeastWeight);
  const T* from = values.data();
  const size_t count = values.size();
  double* to = weights.data();
  run_widest(SP_LOOP(fused) {
    for (size_t i = 0; i < count; i++) {
      const double w = power<decltype(fused)::value>((static_cast<double>(from[i]) - top) * sharpness);
      to[i] = w < least ? 0.0 : w;
    }
  });
}

template <class T>
double weigh_all(const Softmax& softmax, std::span<const T> values) {
  Weights weights;
  double total = 0;
  each_block(values, [&](size_t, std::span<const T> block) {
    weigh(softmax, block, weights);
    total += sum(weights.data(), block.size());
  });
  return total;
}

template <class T>
T most(std::span<const T> values) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  const T* from = values.data();
  const size_t count = values.size();
  Whole<T> found[2];
  Whole<T>* const to = found;
  run_widest(SP_LOOP() {
    Whole<T> top = order(-kInfinity), bottom = order(kInfinity);
    for (size_t i = 0; i < count; i++) {
      const Whole<T> own = order(from[i]);
      top = std::max(top, own), bottom = std::min(bottom, own);
    }
    to[0] = top, to[1] = bottom;
  });
  const auto [top, bottom] = found;
  if (top > order(kInfinity) || bottom < order(-kInfinity)) return std::numeric_limits<T>::quiet_NaN();
  return std::bit_cast<T>(order(std::bit_cast<T>(top)));
}

template <class T>
int32_t largest(std::span<const T> values) {
  T best = -std::numeric_limits<T>::infinity();
  std::ptrdiff_t found = 0;
  bool numbers = true;
  each_block(values, [&](size_t first, std::span<const T> block) {
    const T own = most(block);
    numbers = numbers && !std::isnan(own);
    if (own > best) best = own, found = static_cast<std::ptrdiff_t>(first);
  });
  if (!numbers || !std::isfinite(best)) return -1;
  return static_cast<int32_t>(std::find(values.begin() + found, values.end(), best) - values.begin());
}

template void weigh(const Softmax&, std::span<const float>, Weights&);
template void weigh(const Softmax&, std::span<const double>, Weights&);
template double weigh_all(const Softmax&, std::span<const float>);
template double weigh_all(const Softmax&, std::span<const double>);
template float most(std::span<const float>);
template double most(std::span<const double>);
template int32_t largest(std::span<const float>);
template int32_t largest(std::span<const double>);

}  // namespace sparrow
