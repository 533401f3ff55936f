// add is exact; swiglu meets gates for which exp overflows.
#include "ops.h"

namespace sparrow::test {
namespace {

constexpr int64_t kCounts[] = {1, 2, 15, 16, 17, 100, 8191, 8192, 8193, 20000};

}  // namespace

void test_add(Check& check) {
  Random random(7);
  for (const int64_t count : kCounts) {
    const auto x = random.normals(count), y = random.normals(count);
    check.tokens("add", 1, [&](const SpBackend& on, int32_t, int32_t) {
      Guarded<float> out(x);
      on.add(on.self, out.data(), y.data(), count);
      return out.take();
    });
  }
}

void test_swiglu(Check& check) {
  const SpBackend& b = check.backend();
  Guarded<float> gate(check.fixtures.floats("feed_forward/swiglu.gate"));
  const auto up = check.fixtures.floats("feed_forward/swiglu.up");
  b.swiglu(b.self, gate.data(), up.data(), static_cast<int64_t>(up.size()));
  check.near("feed_forward/swiglu", gate.take(), check.fixtures.floats("feed_forward/swiglu.out"));
  Random random(8);
  for (const int64_t count : kCounts) {
    const auto x = random.normals(count, 3), y = random.normals(count);
    check.tokens("swiglu", 1, [&](const SpBackend& on, int32_t, int32_t) {
      Guarded<float> out(x);
      on.swiglu(on.self, out.data(), y.data(), count);
      return out.take();
    });
  }
}

}  // namespace sparrow::test
