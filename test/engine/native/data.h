// Inputs of the tests: reproducible numbers, weights of every dtype, caches with scrambled pages.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../../../gpu-node/native/backend/registry.h"

namespace sparrow::test {

/// splitmix64: the same numbers everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits();
  int32_t below(int32_t n) { return static_cast<int32_t>(bits() % static_cast<uint64_t>(n)); }
  float uniform() { return static_cast<float>(bits() >> 40) * 0x1p-24f; }  // [0, 1)
  float normal();                                                          // roughly: a sum of uniforms
  std::vector<float> normals(int64_t count, float size = 1);
  /// Multiples of 1/8 from -1/2 to 1/2: sums of products are exact in fp32, and ties are frequent.
  std::vector<float> dyadics(int64_t count);

 private:
  uint64_t state_;
};

/// A weight with storage of its own, off any alignment but its element's. The only place that builds an SpMatrix: a
/// backend that wants weights prepared gets them prepared in on().
class TestMatrix {
 public:
  TestMatrix(int32_t dtype, int32_t rows, int32_t cols, const std::vector<uint8_t>& codes,
             const std::vector<float>& scale, bool exact);
  /// Random, of a size that makes y = W x about as large as x.
  static TestMatrix random(Random& random, int32_t dtype, int32_t rows, int32_t cols, bool exact = false);

  const SpMatrix* on(const SpBackend& backend) const;

 private:
  std::shared_ptr<uint8_t[]> data_;
  std::shared_ptr<float[]> scale_;
  SpMatrix matrix_{};
};

constexpr int32_t kDTypes[] = {SP_F32, SP_BF16, SP_F8_E4M3};
const char* dtype_name(int32_t dtype);

/// The cache of a few sequences: pages in random order, rows beyond a sequence's length and all other memory NaN.
class TestCache {
 public:
  TestCache(Random& random, int32_t latent, int32_t rope, int32_t index, const std::vector<int32_t>& lengths);

  SpPages pages{};
  float* latent(size_t sequence, int64_t position) { return row(sequence, position, 0, pages.latent); }
  float* rope(size_t sequence, int64_t position) {
    return row(sequence, position, SP_PAGE_TOKENS * pages.latent, pages.rope);
  }
  float* index(size_t sequence, int64_t position) {
    return row(sequence, position, SP_PAGE_TOKENS * (pages.latent + pages.rope), pages.index);
  }
  const int32_t* table(size_t sequence) const { return tables_[sequence].data(); }
  std::vector<float>& memory() { return memory_; }

  /// Random rows for every position of every sequence.
  void fill(Random& random, bool dyadic = false);

 private:
  float* row(size_t sequence, int64_t position, int64_t part, int64_t width) {
    return pages.base + pages.page_stride * tables_[sequence][static_cast<size_t>(position / SP_PAGE_TOKENS)] + part +
           position % SP_PAGE_TOKENS * width;
  }
  std::vector<float> memory_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<int32_t> lengths_;
};

/// Tokens of a call: which sequence, which position. `part` is what a smaller call sees.
struct TestTokens {
  std::vector<int32_t> positions;
  std::vector<const int32_t*> tables;
  void add(const TestCache& cache, size_t sequence, int32_t position);
  int32_t size() const { return static_cast<int32_t>(positions.size()); }
  SpTokens part(int32_t first, int32_t count) const { return {count, positions.data() + first, tables.data() + first}; }
};

}  // namespace sparrow::test
