// Where a cache row lands, for backends with pages of fp32 rows (backend/decode.h); everything else in memory keeps its
// bits.
#include <algorithm>

#include "../../../gpu-node/native/backend/decode.h"
#include "ops.h"

namespace sparrow::test {

static std::span<const float> floats_of(const HugeBuffer& memory) {
  return {reinterpret_cast<const float*>(memory.data()), memory.size() / 4};
}

void test_cache_write(Check& check) {
  struct Shape {
    int32_t latent, rope, index;
  };
  Random random(11);
  const SpBackend& b = check.backend();
  // Another layout is its backend's own: what it holds shows in attend and index_select.
  if (b.row_bytes(b.self, 32, 8) != float_row_bytes(32, 8)) return check.that("a layout of its own", true);
  for (const Shape& s : {Shape{32, 8, 16}, {17, 2, 0}, {1, 4, 33}, {512, 64, 128}}) {
    TestCache cache(random, s.latent, s.rope, s.index, {70, 300, 1});
    HugeBuffer memory, expected;
    const SpPages pages = cache.empty_pages(b, memory);
    cache.empty_pages(b, expected);
    TestTokens tokens;
    for (const int32_t at : {0, 63, 64, 69}) tokens.add(cache, 0, at);
    for (const int32_t at : {299, 128, 127, 191}) tokens.add(cache, 1, at);
    tokens.add(cache, 2, 0);
    const int32_t n = tokens.size();
    const auto latent = random.normals(int64_t{n} * s.latent), rope = random.normals(int64_t{n} * s.rope),
               index = random.normals(int64_t{n} * s.index);
    const SpTokens all = tokens.part(0, n);
    b.cache_write(b.self, &pages, &all, latent.data(), rope.data(), s.index ? index.data() : nullptr);
    SpPages want = pages;
    want.base = expected.data() + (pages.base - memory.data());
    want.keys = expected.data() + (pages.keys - memory.data());
    for (int32_t t = 0; t < n; t++) {
      const int32_t* table = tokens.tables[static_cast<size_t>(t)];
      const int32_t at = tokens.positions[static_cast<size_t>(t)];
      std::copy_n(latent.data() + t * s.latent, s.latent, latent_row(want, table, at));
      std::copy_n(rope.data() + t * s.rope, s.rope, rope_row(want, table, at));
      if (s.index) std::copy_n(index.data() + t * s.index, s.index, index_row(want, table, at));
    }
    check.same("index dim " + std::to_string(s.index), floats_of(memory), floats_of(expected));
  }
}

}  // namespace sparrow::test
