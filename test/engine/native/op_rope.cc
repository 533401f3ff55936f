// Both pairings against the published frequencies, and the rotation of one part of a longer head.
#include <algorithm>

#include "ops.h"

namespace sparrow::test {

void test_rope(Check& check) {
  const SpBackend& b = check.backend();
  const Fixtures& f = check.fixtures;
  const auto positions = f.ints("rope/positions");
  const auto rows = f.floats("rope/table");
  std::vector<float> table(4097 * 64);
  for (size_t i = 0; i < positions.size(); i++) std::copy_n(&rows[i * 64], 64, &table[positions[i] * size_t{64}]);
  for (const auto& [name, half_split] : {std::pair{"rope/interleaved", 0}, {"rope/half_split", 1}}) {
    Guarded<float> x(f.floats("rope/x"));
    b.rope(b.self, x.data(), positions.data(), 8, 3, 192, 64, 64, table.data(), half_split);
    check.near(name, x.take(), f.floats(name));
  }
  struct Shape {
    int32_t heads, dim, before, after;
  };
  Random random(6);
  for (const Shape& s : {Shape{1, 2, 0, 0}, {3, 8, 16, 0}, {2, 10, 1, 6}, {16, 64, 0, 64}, {5, 24, 3, 3}}) {
    const int64_t ld_head = s.before + s.dim + s.after, ld_token = ld_head * s.heads;
    const auto x = random.normals(33 * ld_token), angles = random.normals(int64_t{50} * s.dim, 0.7f);
    std::vector<int32_t> at;
    for (int t = 0; t < 33; t++) at.push_back(random.below(50));
    for (const int32_t half_split : {0, 1}) {
      check.tokens("heads", 33, [&](const SpBackend& on, int32_t first, int32_t count) {
        Guarded<float> part(slice(x, ld_token, first, count));
        on.rope(on.self, part.data() + s.before, at.data() + first, count, s.heads, ld_token, ld_head, s.dim,
                angles.data(), half_split);
        return part.take();
      });
    }
  }
}

}  // namespace sparrow::test
