// Packing, and matrix products split over the threads by panels of rows.
#include <algorithm>
#include <cstring>

#include "pool.h"

namespace sparrow::bf16 {
namespace {

/// Multipliers of a row in packed form.
int64_t group_count(const SpMatrix& w) {
  return w.group ? ceil_div(w.cols, w.group) : 0;
}

/// F32 weights whose activations may be rounded are rounded too.
bool stays_float(const SpMatrix& w) {
  return w.dtype == SP_F32 && w.exact;
}

/// Bytes of a block's codes.
int64_t code_bytes(const SpMatrix& w) {
  const int64_t pairs = ceil_div(w.cols, 2);
  if (stays_float(w)) return int64_t{w.cols} * SP_LANES * 4;
  if (w.dtype == SP_I4) return ceil_div(pairs, 4) * 64;
  if (w.dtype == SP_F8_E4M3 || w.dtype == SP_I8) return ceil_div(pairs, 2) * 64;
  return pairs * 64;
}

/// int8 and int4 multipliers are BF16 in the checkpoint already.
int64_t scale_bytes(const SpMatrix& w) {
  return w.dtype == SP_F8_E4M3 ? 4 : 2;
}

int64_t block_bytes(const SpMatrix& w) {
  return code_bytes(w) + ceil_div(group_count(w) * SP_LANES * scale_bytes(w), 64) * 64;
}

/// Row `row` of W as lane `lane` of a block of elements T, `depth` columns side by side.
template <class T>
void pack_row(const T* from, int64_t cols, int64_t lane, int64_t depth, T* block) {
  for (int64_t c = 0; c < cols; c++) block[c / depth * depth * SP_LANES + lane * depth + c % depth] = from[c];
}

void pack_row_i4(const uint8_t* from, int64_t cols, int64_t lane, uint16_t* block) {
  for (int64_t c = 0; c < cols; c++) {
    const int code = (from[c / 2] >> (c % 2 * 4)) & 15;
    block[c / 8 * 32 + lane * 2 + c % 2] |= static_cast<uint16_t>(code << (c / 2 % 4 * 4));
  }
}

/// Byte codes as sign and magnitude. Two pairs share 64 bytes: of each 16, eight belong to the first pair.
void pack_row_bytes(const uint8_t* from, int64_t cols, bool two_complement, int64_t lane, uint8_t* block) {
  for (int64_t c = 0; c < cols; c++) {
    const int64_t pair = c / 2, element = lane * 2 + c % 2;
    const int value = static_cast<int8_t>(from[c]);
    const int code = !two_complement || value >= 0 ? from[c] : 0x80 | -value;
    block[pair / 2 * 64 + element / 8 * 16 + pair % 2 * 8 + element % 8] = static_cast<uint8_t>(code);
  }
}

void pack_row(const SpMatrix& w, int64_t row, int64_t lane, uint8_t* block) {
  const uint8_t* from = static_cast<const uint8_t*>(w.data);
  switch (w.dtype) {
    case SP_F32: {
      const float* floats = static_cast<const float*>(w.data) + row * w.cols;
      if (stays_float(w)) return pack_row(floats, w.cols, lane, 1, reinterpret_cast<float*>(block));
      thread_local std::vector<uint16_t> half;
      half.resize(static_cast<size_t>(w.cols));
      sp_to_bf16(floats, w.cols, w.cols, half.data());
      return pack_row(half.data(), w.cols, lane, 2, reinterpret_cast<uint16_t*>(block));
    }
    case SP_BF16:
      return pack_row(static_cast<const uint16_t*>(w.data) + row * w.cols, w.cols, lane, 2,
                      reinterpret_cast<uint16_t*>(block));
    case SP_I4:
      return pack_row_i4(from + row * ceil_div(w.cols, 2), w.cols, lane, reinterpret_cast<uint16_t*>(block));
    default:
      return pack_row_bytes(from + row * w.cols, w.cols, w.dtype == SP_I8, lane, block);
  }
}

void pack_scales(const SpMatrix& w, int64_t row, int64_t lane, uint8_t* to) {
  const int64_t groups = group_count(w), scale_row = w.dtype == SP_F8_E4M3 ? row / SP_SCALE_BLOCK : row;
  for (int64_t g = 0; g < groups; g++) {
    const float scale = w.scale[scale_row * groups + g];
    if (w.dtype == SP_F8_E4M3)
      std::memcpy(to + (g * SP_LANES + lane) * 4, &scale, 4);
    else
      std::memcpy(to + (g * SP_LANES + lane) * 2, reinterpret_cast<const uint8_t*>(&scale) + 2, 2);
  }
}

/// Panels of a matrix: up to four row blocks, never of two heads.
int64_t panel_count(const SpMatrix& w) {
  return w.heads * ceil_div(head_blocks(w), SP_PANEL_BLOCKS);
}

/// Panel `index` of w for inputs x, where head h reads its own columns `h * head_step` further on.
void run_panel(const SpMatrix& w, int64_t index, SpInput x, int64_t half_step, int64_t full_step, float* y) {
  const int64_t blocks = head_blocks(w), per_head = ceil_div(blocks, SP_PANEL_BLOCKS), h = index / per_head;
  const int64_t begin = index % per_head * SP_PANEL_BLOCKS, count = std::min<int64_t>(SP_PANEL_BLOCKS, blocks - begin);
  const int64_t head_rows = w.rows / w.heads, row = begin * SP_LANES;
  const SpPacked packed = view(w);
  if (x.half) x.half += h * half_step;
  x.full += h * full_step;
  sp_gemm_bf16(&packed, static_cast<int32_t>(h * blocks + begin), static_cast<int32_t>(count),
               static_cast<int32_t>(std::min(count * SP_LANES, head_rows - row)), &x, y + h * head_rows + row, w.rows);
}

bool reads_half(const SpMatrix& w) {
  return !w.exact;
}

}  // namespace

int64_t head_blocks(const SpMatrix& w) {
  return ceil_div(w.rows / w.heads, SP_LANES);
}

SpPacked view(const SpMatrix& w) {
  const int32_t dtype = w.dtype == SP_F32 && !w.exact ? int32_t{SP_BF16} : w.dtype;
  return {static_cast<const uint8_t*>(w.packed),     block_bytes(w), code_bytes(w), dtype,
          static_cast<int32_t>(ceil_div(w.cols, 2)), w.cols,         w.exact,       w.group};
}

int64_t pack(void* self, const SpMatrix* w, void* to) {
  const int64_t bytes = block_bytes(*w), blocks = head_blocks(*w), head_rows = w->rows / w->heads;
  if (!to) return w->heads * blocks * bytes;
  pool(self).threads.each(w->heads * blocks, [&](int64_t b) {
    uint8_t* block = static_cast<uint8_t*>(to) + b * bytes;
    const int64_t in_head = b % blocks * SP_LANES, first = b / blocks * head_rows + in_head;
    std::memset(block, 0, static_cast<size_t>(bytes));
    for (int64_t lane = 0; lane < std::min<int64_t>(SP_LANES, head_rows - in_head); lane++) {
      pack_row(*w, first + lane, lane, block);
      pack_scales(*w, first + lane, lane, block + code_bytes(*w));
    }
  });
  return w->heads * blocks * bytes;
}

void round_rows(Pool& p, const float* x, int64_t ldx, int64_t rows, int64_t cols, uint16_t* half) {
  constexpr int64_t kRows = 16;
  const int64_t ld = padded(cols);
  const auto some = [&](int64_t i) {
    for (int64_t r = i * kRows; r < std::min(rows, (i + 1) * kRows); r++)
      sp_to_bf16(x + r * ldx, cols, ceil_div(cols, 2) * 2, half + r * ld);
  };
  p.threads.each(ceil_div(rows, kRows), some);
}

void matmul(void* self, const SpProduct* products, int32_t count, const float* x, int32_t n) {
  Pool& p = pool(self);
  const int64_t cols = products[0].w->cols, ld = padded(cols);
  SpInput input = {nullptr, x, ld, cols, n};
  if (std::any_of(products, products + count, [](const SpProduct& q) { return reads_half(*q.w); })) {
    p.half.resize(std::max(p.half.size(), static_cast<size_t>(n * ld)));
    round_rows(p, x, cols, n, cols, p.half.data());
    input.half = p.half.data();
  }
  int64_t panels = 0;
  for (int32_t i = 0; i < count; i++) panels += panel_count(*products[i].w);
  p.threads.each(panels, [&](int64_t panel) {
    const SpProduct* at = products;
    while (panel >= panel_count(*at->w)) panel -= panel_count(*at++->w);
    run_panel(*at->w, panel, input, 0, 0, at->y);
  });
}

void matmul_heads(void* self, const SpMatrix* w, const float* x, int64_t ldx, int64_t ldh, int32_t n, float* y) {
  Pool& p = pool(self);
  const int64_t ld = padded(w->cols);
  SpInput input = {nullptr, x, ld * w->heads, ldx, n};
  if (reads_half(*w)) {
    p.half.resize(std::max(p.half.size(), static_cast<size_t>(n * w->heads * ld)));
    p.threads.each(n, [&](int64_t t) {
      for (int64_t h = 0; h < w->heads; h++)
        sp_to_bf16(x + t * ldx + h * ldh, w->cols, ceil_div(w->cols, 2) * 2, p.half.data() + (t * w->heads + h) * ld);
    });
    input.half = p.half.data();
  }
  p.threads.each(panel_count(*w), [&](int64_t panel) { run_panel(*w, panel, input, ld, ldh, y); });
}

}  // namespace sparrow::bf16
