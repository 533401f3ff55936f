// Every buffer is exactly as large as the contract says, so that a sanitizer sees each byte read too far.
#include "data.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace sparrow::test {
namespace {

int32_t width_of(int32_t dtype) {
  return dtype == SP_F32 ? 4 : dtype == SP_BF16 ? 2 : 1;
}

int64_t blocks_of(int64_t side) {
  return (side + SP_SCALE_BLOCK - 1) / SP_SCALE_BLOCK;
}

}  // namespace

uint64_t Random::bits() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

float Random::normal() {
  float sum = 0;
  for (int i = 0; i < 6; i++) sum += uniform();
  return (sum - 3) * 1.41421356f;
}

std::vector<float> Random::normals(int64_t count, float size) {
  std::vector<float> out(static_cast<size_t>(count));
  for (float& v : out) v = size * normal();
  return out;
}

std::vector<float> Random::dyadics(int64_t count) {
  std::vector<float> out(static_cast<size_t>(count));
  for (float& v : out) v = static_cast<float>(below(9) - 4) / 8;
  return out;
}

const char* dtype_name(int32_t dtype) {
  return dtype == SP_F32 ? "F32" : dtype == SP_BF16 ? "BF16" : "FP8";
}

TestMatrix::TestMatrix(int32_t dtype, int32_t rows, int32_t cols, const std::vector<uint8_t>& codes,
                       const std::vector<float>& scale, bool exact) {
  const size_t width = static_cast<size_t>(width_of(dtype));
  data_ = std::shared_ptr<uint8_t[]>(new uint8_t[codes.size() + width]);
  std::copy(codes.begin(), codes.end(), data_.get() + width);
  matrix_.data = data_.get() + width;
  if (!scale.empty()) {
    scale_ = std::shared_ptr<float[]>(new float[scale.size()]);
    std::copy(scale.begin(), scale.end(), scale_.get());
    matrix_.scale = scale_.get();
  }
  matrix_.dtype = dtype;
  matrix_.rows = rows;
  matrix_.cols = cols;
  matrix_.exact = exact;
}

TestMatrix TestMatrix::random(Random& random, int32_t dtype, int32_t rows, int32_t cols, bool exact) {
  const size_t count = static_cast<size_t>(rows) * static_cast<size_t>(cols);
  const size_t width = static_cast<size_t>(width_of(dtype));
  const float size = 1 / std::sqrt(static_cast<float>(cols));
  std::vector<uint8_t> codes(count * width);
  for (size_t i = 0; i < count; i++) {
    const float value = size * random.normal();
    uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    if (dtype == SP_BF16) bits >>= 16;
    // Exponents from subnormal to 2^3; the scales of random blocks do the rest.
    if (dtype == SP_F8_E4M3) bits = static_cast<uint32_t>(random.below(2) * 128 + random.below(88));
    std::memcpy(codes.data() + i * width, &bits, width);
  }
  std::vector<float> scale;
  if (dtype == SP_F8_E4M3) {
    for (int64_t i = 0; i < blocks_of(rows) * blocks_of(cols); i++)
      scale.push_back(size * (0.25f + random.uniform()) * std::ldexp(1.0f, -random.below(4)));
  }
  return TestMatrix(dtype, rows, cols, codes, scale, exact);
}

const SpMatrix* TestMatrix::on(const SpBackend&) const {
  return &matrix_;
}

TestCache::TestCache(Random& random, int32_t latent, int32_t rope, int32_t index, const std::vector<int32_t>& lengths)
    : lengths_(lengths) {
  int32_t count = 2;  // pages that belong to nobody
  for (const int32_t length : lengths) count += (length + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS;
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i-- > 1;)
    std::swap(order[i], order[static_cast<size_t>(random.below(static_cast<int32_t>(i) + 1))]);
  const int64_t layer = static_cast<int64_t>(SP_PAGE_TOKENS) * (latent + rope + index);
  // As in the model: a page holds several layers, so the stride is wider than the layer, and `base` lies inside.
  pages.page_stride = 2 * layer + 5;
  memory_.assign(static_cast<size_t>(pages.page_stride * count), std::numeric_limits<float>::quiet_NaN());
  pages.base = memory_.data() + layer + 5;
  pages.latent = latent;
  pages.rope = rope;
  pages.index = index;
  for (const int32_t length : lengths) {
    const int32_t need = (length + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS;
    tables_.emplace_back(order.end() - need, order.end());
    order.resize(order.size() - static_cast<size_t>(need));
  }
}

void TestCache::fill(Random& random, bool dyadic) {
  const auto put = [&](float* to, int32_t width) {
    const std::vector<float> values = dyadic ? random.dyadics(width) : random.normals(width);
    std::copy(values.begin(), values.end(), to);
  };
  for (size_t s = 0; s < lengths_.size(); s++) {
    for (int32_t at = 0; at < lengths_[s]; at++) {
      put(latent(s, at), pages.latent);
      put(rope(s, at), pages.rope);
      put(index(s, at), pages.index);
    }
  }
}

void TestTokens::add(const TestCache& cache, size_t sequence, int32_t position) {
  positions.push_back(position);
  tables.push_back(cache.table(sequence));
}

}  // namespace sparrow::test
