// Where a cache row lands, by the layout that backend.h states; everything else in memory keeps its bits.
#include <algorithm>

#include "ops.h"

namespace sparrow::test {

void test_cache_write(Check& check) {
  struct Shape {
    int32_t latent, rope, index;
  };
  Random random(11);
  const SpBackend& b = check.backend();
  for (const Shape& s : {Shape{32, 8, 16}, {17, 2, 0}, {1, 4, 33}, {512, 64, 128}}) {
    TestCache cache(random, s.latent, s.rope, s.index, {70, 300, 1});
    std::fill(cache.memory().begin(), cache.memory().end(), -3.5f);
    TestTokens tokens;
    for (const int32_t at : {0, 63, 64, 69}) tokens.add(cache, 0, at);
    for (const int32_t at : {299, 128, 127, 191}) tokens.add(cache, 1, at);
    tokens.add(cache, 2, 0);
    const int32_t n = tokens.size();
    const auto latent = random.normals(int64_t{n} * s.latent), rope = random.normals(int64_t{n} * s.rope),
               index = random.normals(int64_t{n} * s.index);
    const SpTokens all = tokens.part(0, n);
    b.cache_write(b.self, &cache.pages, &all, latent.data(), rope.data(), s.index ? index.data() : nullptr);
    std::vector<float> got = cache.memory();
    std::fill(cache.memory().begin(), cache.memory().end(), -3.5f);
    for (int32_t t = 0; t < n; t++) {
      const size_t sequence = t < 4 ? 0 : t < 8 ? 1 : 2;
      const int32_t at = tokens.positions[static_cast<size_t>(t)];
      std::copy_n(latent.data() + t * s.latent, s.latent, cache.latent(sequence, at));
      std::copy_n(rope.data() + t * s.rope, s.rope, cache.rope(sequence, at));
      std::copy_n(index.data() + t * s.index, s.index, cache.index(sequence, at));
    }
    check.same("index dim " + std::to_string(s.index), got, cache.memory());
  }
}

}  // namespace sparrow::test
