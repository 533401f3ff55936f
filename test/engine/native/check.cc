// Comparisons count elements; failures keep the first few in words, the rest as a number.
#include "check.h"

#include <cmath>
#include <cstring>

namespace sparrow::test {
namespace {

constexpr size_t kFailuresKept = 3;
constexpr int32_t kBatches[] = {1, 2, 3, 5, 16, 25};

std::string place(size_t i, float got, float want) {
  char text[96];
  std::snprintf(text, sizeof text, " [%zu]: %.9g, expected %.9g", i, static_cast<double>(got),
                static_cast<double>(want));
  return text;
}

bool same_bits(float a, float b) {
  uint32_t x = 0, y = 0;
  std::memcpy(&x, &a, 4);
  std::memcpy(&y, &b, 4);
  return x == y;
}

}  // namespace

void Check::fail(const std::string& what) {
  if (failures_.size() < kFailuresKept)
    failures_.push_back(what);
  else if (failures_.size() == kFailuresKept)
    failures_.push_back("... and more");
}

void Check::that(const std::string& what, bool holds) {
  comparisons_++;
  if (!holds) fail(what);
}

void Check::near(const std::string& what, std::span<const float> got, std::span<const float> want, double tolerance) {
  comparisons_ += static_cast<int64_t>(want.size());
  if (got.size() != want.size()) return fail(what + ": has another size");
  if (std::isinf(tolerance)) return;
  for (size_t i = 0; i < want.size(); i++) {
    const double off = std::fabs(static_cast<double>(got[i]) - want[i]) / (1 + std::fabs(static_cast<double>(want[i])));
    if (off > worst_) worst_ = off;
    if (!(off <= tolerance)) return fail(what + place(i, got[i], want[i]));
  }
}

void Check::same(const std::string& what, std::span<const float> got, std::span<const float> want) {
  comparisons_ += static_cast<int64_t>(want.size());
  if (got.size() != want.size()) return fail(what + ": has another size");
  for (size_t i = 0; i < want.size(); i++) {
    if (!same_bits(got[i], want[i])) return fail(what + place(i, got[i], want[i]));
  }
}

void Check::tokens(const std::string& what, int32_t n, const Compute& compute, double tolerance) {
  const std::vector<float> whole = compute(backend(), 0, n);
  near(what, whole, compute(reference_backend(), 0, n), tolerance);
  for (size_t i = 1; i < subject_.by_threads.size(); i++)
    same(what + " on " + std::to_string(i + 1) + " threads", compute(subject_.by_threads[i].table, 0, n), whole);
  const int64_t width = static_cast<int64_t>(whole.size()) / n;
  size_t turn = 0;
  const auto part = [&](int32_t first, int32_t count) {
    const SpBackend& b = subject_.by_threads[turn++ % subject_.by_threads.size()].table;
    same(what + " in a batch of " + std::to_string(count), compute(b, first, count), slice(whole, width, first, count));
  };
  for (int32_t t = 0; t < n; t++) part(t, 1);
  for (const int32_t count : kBatches) {
    if (count >= n || count == 1) continue;
    part(0, count);
    part(n - count, count);
  }
}

}  // namespace sparrow::test
