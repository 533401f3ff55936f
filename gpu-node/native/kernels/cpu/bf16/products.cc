// Packing, and matrix products split over the threads by panels of rows.
#include <algorithm>
#include <cstring>

#include "pool.h"

namespace sparrow::bf16 {
namespace {

int64_t block_bytes(const SpMatrix& w) {
  const int64_t pairs = ceil_div(w.cols, 2);
  if (w.dtype == SP_F32) return int64_t{w.cols} * SP_LANES * 4;
  if (w.dtype == SP_F8_E4M3) return ceil_div(pairs, 2) * 64;
  return pairs * 64;
}

/// Rows [row, row + rows) to one block of elements T: `depth` columns side by side in each lane.
template <class T>
void pack_block(const SpMatrix& w, int64_t row, int64_t rows, int64_t depth, T* to) {
  const T* from = static_cast<const T*>(w.data) + row * w.cols;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < w.cols; c++)
      to[c / depth * depth * SP_LANES + r * depth + c % depth] = from[r * w.cols + c];
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
  return w.dtype != SP_F32 && !w.exact;
}

}  // namespace

int64_t head_blocks(const SpMatrix& w) {
  return ceil_div(w.rows / w.heads, SP_LANES);
}

SpPacked view(const SpMatrix& w) {
  return {static_cast<const uint8_t*>(w.packed),
          block_bytes(w),
          w.dtype,
          static_cast<int32_t>(ceil_div(w.cols, 2)),
          w.cols,
          w.exact,
          w.scale};
}

int64_t pack(void* self, const SpMatrix* w, void* to) {
  const int64_t bytes = block_bytes(*w), blocks = head_blocks(*w), head_rows = w->rows / w->heads;
  if (!to) return w->heads * blocks * bytes;
  pool(self).threads.each(w->heads * blocks, [&](int64_t b) {
    uint8_t* block = static_cast<uint8_t*>(to) + b * bytes;
    const int64_t in_head = b % blocks * SP_LANES, row = b / blocks * head_rows + in_head;
    const int64_t rows = std::min<int64_t>(SP_LANES, head_rows - in_head);
    std::memset(block, 0, static_cast<size_t>(bytes));
    if (w->dtype == SP_F32)
      pack_block(*w, row, rows, 1, reinterpret_cast<float*>(block));
    else if (w->dtype == SP_BF16)
      pack_block(*w, row, rows, 2, reinterpret_cast<uint16_t*>(block));
    else
      pack_block(*w, row, rows, 2, block);
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
