// Inputs of the tests: reproducible numbers, weights of every dtype, caches with scrambled pages.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../../../gpu-node/native/backend/registry.h"
#include "../../../gpu-node/native/huge_buffer.h"

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
  TestMatrix& with_heads(int32_t heads, int32_t narrow = 0);

  const SpMatrix* on(const SpBackend& backend) const;
  const SpMatrix& plain() const { return matrix_; }

 private:
  std::shared_ptr<uint8_t[]> data_;
  std::shared_ptr<float[]> scale_;
  SpMatrix matrix_{};
  struct Packed {
    HugeBuffer memory;
    SpMatrix matrix;
  };
  mutable std::map<const void*, std::shared_ptr<Packed>> packed_;  // by backend
};

/// y = W x of one weight.
void multiply(const SpBackend& b, const SpMatrix* w, const float* x, int32_t n, float* y);

constexpr int32_t kDTypes[] = {SP_F32, SP_BF16, SP_F8_E4M3, SP_I8, SP_I4};
const char* dtype_name(int32_t dtype);

/// The cache of a few sequences: pages in random order, rows beyond a sequence's length and all other memory NaN. Rows
/// are kept as fp32 here; on() has a backend write them into pages of its own.
class TestCache {
 public:
  TestCache(Random& random, int32_t latent, int32_t rope, int32_t index, const std::vector<int32_t>& lengths);

  const int32_t latents, ropes, indexes;
  float* latent(size_t sequence, int64_t position) { return &latent_[row(sequence, position) * latents]; }
  float* rope(size_t sequence, int64_t position) { return &rope_[row(sequence, position) * ropes]; }
  float* index(size_t sequence, int64_t position) { return &index_[row(sequence, position) * indexes]; }
  const int32_t* table(size_t sequence) const { return tables_[sequence].data(); }

  /// Random rows for every position of every sequence.
  void fill(Random& random, bool dyadic = false);

  /// Pages of one backend, with every row written; valid until the cache is gone. Rows must not change afterwards.
  const SpPages& on(const SpBackend& backend) const;
  /// The same without any row.
  SpPages empty_pages(const SpBackend& backend, HugeBuffer& memory) const;

 private:
  size_t row(size_t sequence, int64_t position) const { return static_cast<size_t>(first_row_[sequence] + position); }
  struct Written {
    HugeBuffer memory;
    SpPages pages;
  };
  std::vector<float> latent_, rope_, index_;
  std::vector<int64_t> first_row_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<int32_t> lengths_;
  int32_t page_count_ = 2;  // two belong to nobody
  mutable std::map<const void*, std::shared_ptr<Written>> written_;
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
