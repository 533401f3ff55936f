// The routed experts: some serve nobody, one serves every token; the result is added to what y held.
#include <numeric>

#include "ops.h"

namespace sparrow::test {
namespace {

struct Parts {
  std::vector<TestMatrix> gate, up, down;
};

std::vector<SpMatrix> on_backend(const SpBackend& b, const std::vector<TestMatrix>& matrices) {
  std::vector<SpMatrix> out;
  for (const TestMatrix& m : matrices) out.push_back(*m.on(b));
  return out;
}

std::vector<float> run(const SpBackend& b, const Parts& parts, int32_t top_k, const float* x, const int32_t* ids,
                       const float* weights, int32_t n, const std::vector<float>& y) {
  const auto gate = on_backend(b, parts.gate), up = on_backend(b, parts.up), down = on_backend(b, parts.down);
  SpExperts e{};
  e.gate = gate.data();
  e.up = up.data();
  e.down = down.data();
  e.experts = static_cast<int32_t>(gate.size());
  e.top_k = top_k;
  Guarded<float> out(y);
  b.experts(b.self, &e, x, ids, weights, n, out.data());
  return out.take();
}

std::vector<TestMatrix> fixture_part(const Fixtures& f, const std::string& name, int32_t rows, int32_t cols) {
  const auto bytes = f.bytes("feed_forward/experts." + name);
  std::vector<TestMatrix> out;
  for (int64_t e = 0; e < 6; e++)
    out.emplace_back(SP_BF16, rows, cols, slice(bytes, int64_t{rows} * cols * 2, e, 1), std::vector<float>{}, false);
  return out;
}

/// n rows of top_k different experts; expert `experts - 1` serves every token when there are more than top_k.
std::vector<int32_t> choices(Random& random, int32_t n, int32_t experts, int32_t top_k) {
  std::vector<int32_t> out;
  for (int32_t t = 0; t < n; t++) {
    std::vector<int32_t> order(static_cast<size_t>(experts));
    std::iota(order.rbegin(), order.rend(), 0);
    for (int32_t k = experts > top_k ? 1 : 0; k < top_k; k++) {
      std::swap(order[static_cast<size_t>(k)], order[static_cast<size_t>(k + random.below(experts - k))]);
    }
    out.insert(out.end(), order.begin(), order.begin() + top_k);
  }
  return out;
}

}  // namespace

void test_experts(Check& check) {
  const Fixtures& f = check.fixtures;
  const Parts fixture = {fixture_part(f, "gate", 24, 40), fixture_part(f, "up", 24, 40),
                         fixture_part(f, "down", 40, 24)};
  check.near("feed_forward/experts",
             run(check.backend(), fixture, 3, f.floats("feed_forward/experts.x").data(),
                 f.ints("feed_forward/experts.ids").data(), f.floats("feed_forward/experts.weights").data(), 5,
                 f.floats("feed_forward/experts.y")),
             f.floats("feed_forward/experts.out"), check.tolerance(true));

  struct Shape {
    int32_t experts, top_k, hidden, inter;
  };
  Random random(10);
  for (const int32_t dtype : kDTypes) {
    for (const Shape& s :
         {Shape{1, 1, 3, 5}, {2, 2, 16, 17}, {16, 1, 40, 24}, {3, 2, 144, 131}, {12, 6, 33, 40}, {40, 3, 64, 33}}) {
      Parts parts;
      for (int32_t e = 0; e < s.experts; e++) {
        parts.gate.push_back(TestMatrix::random(random, dtype, s.inter, s.hidden));
        parts.up.push_back(TestMatrix::random(random, dtype, s.inter, s.hidden));
        parts.down.push_back(TestMatrix::random(random, dtype, s.hidden, s.inter));
      }
      const auto x = random.normals(int64_t{33} * s.hidden), y = random.normals(int64_t{33} * s.hidden),
                 weights = random.normals(int64_t{33} * s.top_k);
      const auto ids = choices(random, 33, s.experts, s.top_k);
      const Compute compute = [&](const SpBackend& on, int32_t first, int32_t count) {
        return run(on, parts, s.top_k, slice(x, s.hidden, first, count).data(), ids.data() + first * s.top_k,
                   weights.data() + first * s.top_k, count, slice(y, s.hidden, first, count));
      };
      check.tokens(std::string(dtype_name(dtype)) + " " + std::to_string(s.experts) + " experts", 33, compute,
                   check.tolerance(true));
    }
  }
}

}  // namespace sparrow::test
