// What a test of one operation compares: against fixtures, against the reference backend, and against itself in other
// batches and on other numbers of threads.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "../../../gpu-node/native/backend/registry.h"
#include "fixtures.h"

namespace sparrow::test {

/// One backend under test, opened with 1, 2 and 3 threads where it has any.
struct Subject {
  std::string isa;
  bool rounds = false;  // rounds the activations of matrices that are not `exact`
  std::vector<Backend> by_threads;
};

/// The result of tokens [first, first + count), one row of equal length a token.
using Compute = std::function<std::vector<float>(const SpBackend&, int32_t first, int32_t count)>;

class Check {
 public:
  Check(const Subject& subject, const Fixtures& fixtures, double strict, double loose)
      : fixtures(fixtures), subject_(subject), strict_(strict), loose_(loose) {}

  const Fixtures& fixtures;
  const SpBackend& backend() const { return subject_.by_threads[0].table; }
  bool rounds() const { return subject_.rounds; }
  /// What results may differ by, as |got - want| / (1 + |want|); `rounded` where a rounding backend may round.
  double tolerance(bool rounded = false) const { return rounded && subject_.rounds ? loose_ : strict_; }

  void near(const std::string& what, std::span<const float> got, std::span<const float> want, double tolerance);
  void near(const std::string& what, std::span<const float> got, std::span<const float> want) {
    near(what, got, want, strict_);
  }
  /// Bit for bit.
  void same(const std::string& what, std::span<const float> got, std::span<const float> want);
  void that(const std::string& what, bool holds);

  /// All n tokens against the reference; then bit for bit alike on 2 and 3 threads, alone, and in smaller batches.
  void tokens(const std::string& what, int32_t n, const Compute& compute, double tolerance);
  void tokens(const std::string& what, int32_t n, const Compute& compute) { tokens(what, n, compute, strict_); }

  double worst() const { return worst_; }
  int64_t comparisons() const { return comparisons_; }
  const std::vector<std::string>& failures() const { return failures_; }

 private:
  void fail(const std::string& what);

  const Subject& subject_;
  double strict_, loose_, worst_ = 0;
  int64_t comparisons_ = 0;
  std::vector<std::string> failures_;  // the first few, in words
};

/// An output buffer: NaN (or -7) where nothing was written, guards on both sides. A broken guard poisons the result.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t size) : all_(static_cast<size_t>(size) + 2 * kGuard, T{-7}) {
    if constexpr (std::numeric_limits<T>::has_quiet_NaN) std::fill_n(data(), size, std::numeric_limits<T>::quiet_NaN());
  }
  explicit Guarded(const std::vector<T>& content) : Guarded(static_cast<int64_t>(content.size())) {
    std::copy(content.begin(), content.end(), data());
  }

  T* data() { return all_.data() + kGuard; }

  std::vector<float> take() const {
    std::vector<float> out(all_.begin() + kGuard, all_.end() - kGuard);
    for (size_t i = 0; i < kGuard; i++) {
      if (all_[i] == T{-7} && all_[all_.size() - 1 - i] == T{-7}) continue;
      out.assign(out.size(), std::numeric_limits<float>::quiet_NaN());
    }
    return out;
  }

 private:
  static constexpr size_t kGuard = 32;
  std::vector<T> all_;
};

/// Part of `rows` (each `width` long).
template <class T>
std::vector<T> slice(const std::vector<T>& rows, int64_t width, int64_t first, int64_t count) {
  return {rows.begin() + first * width, rows.begin() + (first + count) * width};
}

}  // namespace sparrow::test
