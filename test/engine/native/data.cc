// Every buffer is exactly as large as the contract says, so that a sanitizer sees each byte read too far.
#include "data.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "../../../gpu-node/native/backend/decode.h"

namespace sparrow::test {
namespace {

int32_t width_of(int32_t dtype) {
  return dtype == SP_F32 ? 4 : dtype == SP_BF16 ? 2 : 1;
}

constexpr int32_t kGroup = 32;

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
  return dtype == SP_F32       ? "F32"
         : dtype == SP_BF16    ? "BF16"
         : dtype == SP_F8_E4M3 ? "FP8"
         : dtype == SP_I8      ? "int8"
                               : "int4";
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
  matrix_.heads = 1;
  matrix_.group = dtype == SP_F8_E4M3 ? SP_SCALE_BLOCK : scale.empty() ? 0 : kGroup;
}

TestMatrix& TestMatrix::with_heads(int32_t heads, int32_t narrow) {
  matrix_.narrow = narrow;
  matrix_.heads = heads;
  return *this;
}

static TestMatrix random_groups(Random& random, int32_t dtype, int32_t rows, int32_t cols, float size, bool exact) {
  std::vector<uint8_t> codes(static_cast<size_t>(rows) * static_cast<size_t>(dtype == SP_I8 ? cols : (cols + 1) / 2));
  for (uint8_t& code : codes) code = static_cast<uint8_t>(dtype == SP_I8 ? random.below(255) - 127 : random.below(256));
  std::vector<float> scale;
  for (int64_t i = 0; i < int64_t{rows} * ((cols + kGroup - 1) / kGroup); i++) {
    const float value = size / (dtype == SP_I8 ? 64 : 4) * (0.25f + random.uniform());
    uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    bits &= 0xFFFF0000;  // BF16, as the format has it
    scale.emplace_back();
    std::memcpy(&scale.back(), &bits, 4);
  }
  return TestMatrix(dtype, rows, cols, codes, scale, exact);
}

/// The E4M3 code nearest to `value`.
static uint8_t e4m3_code(float value) {
  uint8_t best = 0;
  for (uint8_t code = 0; code < 0x7F; code++) {
    if (std::fabs(e4m3_to_float(code) - std::fabs(value)) < std::fabs(e4m3_to_float(best) - std::fabs(value)))
      best = code;
  }
  return static_cast<uint8_t>(best | (value < 0 ? 0x80 : 0));
}

TestMatrix TestMatrix::random(Random& random, int32_t dtype, int32_t rows, int32_t cols, bool exact) {
  const size_t count = static_cast<size_t>(rows) * static_cast<size_t>(cols);
  const size_t width = static_cast<size_t>(width_of(dtype));
  const float size = 1 / std::sqrt(static_cast<float>(cols));
  if (dtype == SP_I8 || dtype == SP_I4) return random_groups(random, dtype, rows, cols, size, exact);
  std::vector<uint8_t> codes(count * width);
  for (size_t i = 0; i < count; i++) {
    const float value = size * random.normal();
    uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    if (dtype == SP_BF16) bits >>= 16;
    // As weights are: normal, subnormals among them; the scales of random blocks do the rest.
    if (dtype == SP_F8_E4M3) bits = e4m3_code(random.normal());
    std::memcpy(codes.data() + i * width, &bits, width);
  }
  std::vector<float> scale;
  if (dtype == SP_F8_E4M3) {
    for (int64_t i = 0; i < blocks_of(rows) * blocks_of(cols); i++)
      scale.push_back(size * (0.25f + random.uniform()) * std::ldexp(1.0f, -random.below(4)));
  }
  return TestMatrix(dtype, rows, cols, codes, scale, exact);
}

const SpMatrix* TestMatrix::on(const SpBackend& b) const {
  const int64_t bytes = b.pack(b.self, &matrix_, nullptr);
  if (bytes == 0) return &matrix_;
  std::shared_ptr<Packed>& mine = packed_[b.self];
  if (!mine) {
    mine = std::make_shared<Packed>(Packed{HugeBuffer(static_cast<size_t>(bytes)), matrix_});
    b.pack(b.self, &matrix_, mine->memory.data());
    mine->matrix.packed = mine->memory.data();
  }
  return &mine->matrix;
}

void multiply(const SpBackend& b, const SpMatrix* w, const float* x, int32_t n, float* y) {
  const SpProduct product = {w, y};
  b.matmul(b.self, &product, 1, x, n);
}

TestCache::TestCache(Random& random, int32_t latent, int32_t rope, int32_t index, const std::vector<int32_t>& lengths)
    : latents(latent), ropes(rope), indexes(index), lengths_(lengths) {
  for (const int32_t length : lengths) page_count_ += (length + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS;
  std::vector<int32_t> order(static_cast<size_t>(page_count_));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i-- > 1;)
    std::swap(order[i], order[static_cast<size_t>(random.below(static_cast<int32_t>(i) + 1))]);
  int64_t rows = 0;
  for (const int32_t length : lengths) {
    const int32_t need = (length + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS;
    tables_.emplace_back(order.end() - need, order.end());
    order.resize(order.size() - static_cast<size_t>(need));
    first_row_.push_back(rows);
    rows += length;
  }
  latent_.resize(static_cast<size_t>(rows * latent));
  rope_.resize(static_cast<size_t>(rows * rope));
  index_.resize(static_cast<size_t>(rows * index));
}

SpPages TestCache::empty_pages(const SpBackend& b, HugeBuffer& memory) const {
  const int64_t rows = b.row_bytes(b.self, latents, ropes), keys = b.key_bytes(b.self, indexes);
  // As in the model: a page holds several layers, so the strides are wider than the layer, which lies inside.
  const int64_t row_stride = 2 * rows + 64, key_stride = 2 * keys + 64;
  memory = HugeBuffer(static_cast<size_t>((row_stride + key_stride) * page_count_));
  std::memset(memory.data(), 0xFF, memory.size());  // NaN in every format
  uint8_t* all_keys = memory.data() + row_stride * page_count_;
  return {memory.data() + rows + 64, row_stride, all_keys + keys + 64, key_stride, latents, ropes, indexes};
}

const SpPages& TestCache::on(const SpBackend& b) const {
  std::shared_ptr<Written>& mine = written_[b.self];
  if (mine) return mine->pages;
  mine = std::make_shared<Written>();
  mine->pages = empty_pages(b, mine->memory);
  for (size_t s = 0; s < lengths_.size(); s++) {
    std::vector<int32_t> positions(static_cast<size_t>(lengths_[s]));
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<const int32_t*> tables(positions.size(), table(s));
    const SpTokens tokens = {lengths_[s], positions.data(), tables.data()};
    const size_t first = row(s, 0);
    b.cache_write(b.self, &mine->pages, &tokens, latent_.data() + first * static_cast<size_t>(latents),
                  rope_.data() + first * static_cast<size_t>(ropes),
                  indexes ? index_.data() + first * static_cast<size_t>(indexes) : nullptr);
  }
  return mine->pages;
}

void TestCache::fill(Random& random, bool dyadic) {
  for (std::vector<float>* values : {&latent_, &rope_, &index_}) {
    const int64_t count = static_cast<int64_t>(values->size());
    *values = dyadic ? random.dyadics(count) : random.normals(count);
  }
}

void TestTokens::add(const TestCache& cache, size_t sequence, int32_t position) {
  positions.push_back(position);
  tables.push_back(cache.table(sequence));
}

}  // namespace sparrow::test
