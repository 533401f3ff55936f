// Per-head products, with the two strides that the model uses: heads side by side, and the nope part of a longer head.
#include <utility>

#include "ops.h"

namespace sparrow::test {

void test_matmul_heads(Check& check) {
  const SpBackend& b = check.backend();
  TestMatrix fixture(SP_BF16, 21, 40, check.fixtures.bytes("matmul/heads.w"), {}, false);
  fixture.with_heads(3);
  const auto given = check.fixtures.floats("matmul/heads.x");
  Guarded<float> out(5 * 21);
  b.matmul_heads(b.self, fixture.on(b), given.data(), 120, 40, 5, out.data());
  check.near("heads.y", out.take(), check.fixtures.floats("matmul/heads.y"), 0);

  struct Shape {
    int32_t heads, out, cols, pad;
  };
  Random random(5);
  // What the loader makes of kv_b_proj, alone and beside quantised weights.
  for (const auto& [dtype, narrow] : {std::pair{SP_F32, 0}, {SP_BF16, 0}, {SP_F32, 1}, {SP_BF16, 1}}) {
    for (const Shape& s :
         {Shape{1, 1, 1, 0}, {1, 40, 24, 8}, {2, 17, 16, 1}, {3, 5, 33, 0}, {16, 32, 16, 8}, {5, 136, 129, 64}}) {
      TestMatrix w = TestMatrix::random(random, dtype, s.heads * s.out, s.cols);
      w.with_heads(s.heads, narrow);
      const int64_t ldh = s.cols + s.pad, ldx = ldh * s.heads;
      const auto x = random.normals(33 * ldx);
      const Compute compute = [&](const SpBackend& on, int32_t first, int32_t count) {
        // The last head's padding is cut off: it is not the operation's to read.
        std::vector<float> part = slice(x, ldx, first, count);
        part.resize(part.size() - static_cast<size_t>(s.pad));
        part.shrink_to_fit();
        Guarded<float> y(int64_t{count} * s.heads * s.out);
        on.matmul_heads(on.self, w.on(on), part.data(), ldx, ldh, count, y.data());
        return y.take();
      };
      check.tokens(std::string(dtype_name(dtype)) + (narrow ? " narrow " : " ") + std::to_string(s.heads) + " heads",
                   33, compute, check.tolerance(true));
    }
  }
}

}  // namespace sparrow::test
