// Matrix product over SP_WIDTH lanes, included by matmul_<isa>.cc. Tiles of R rows and T tokens share loads; each
// (row, token) has its own accumulator and the same order of additions in every tile, so results do not depend on n.
#include "ops.h"
#include "vector.h"

namespace {

struct F32 {
  typedef float T;
  SP_INLINE Vec load_row(const T* p) { return load(p); }
  SP_INLINE float value(T v) { return v; }
};
struct BF16 {
  typedef uint16_t T;
  SP_INLINE Vec load_row(const T* p) { return load_bf16(p); }
  SP_INLINE float value(T v) { return bf16_value(v); }
};
struct E4M3 {
  typedef uint8_t T;
  SP_INLINE Vec load_row(const T* p) { return load_e4m3(p); }
  SP_INLINE float value(T v) { return e4m3_value(v); }
};

/// Columns [begin, end) of an R x T tile, added to `total`, times `scale[r]` when there is one.
template <class D, int R, int T>
SP_INLINE void tile_block(const typename D::T* w, int64_t cols, const float* x, int64_t ldx, int64_t begin, int64_t end,
                          const float* const* scale, int64_t block, Vec (&total)[R][T], float (&tail)[R][T]) {
  Vec sum[R][T] = {};
  int64_t k = begin;
  for (; k + SP_WIDTH <= end; k += SP_WIDTH) {
    Vec xs[T];
    for (int t = 0; t < T; t++) xs[t] = load(x + t * ldx + k);
    for (int r = 0; r < R; r++) {
      const Vec row = D::load_row(w + r * cols + k);
      for (int t = 0; t < T; t++) sum[r][t] += row * xs[t];
    }
  }
  for (int r = 0; r < R; r++) {
    const float s = scale ? scale[r][block] : 1.0f;
    for (int t = 0; t < T; t++) {
      total[r][t] += sum[r][t] * s;
      for (int64_t i = k; i < end; i++) tail[r][t] += D::value(w[r * cols + i]) * x[t * ldx + i] * s;
    }
  }
}

template <class D, int R, int T>
SP_INLINE void tile(const SpMatrix* m, int32_t row, const float* x, int64_t ldx, float* y, int64_t ldy) {
  const int64_t cols = m->cols, blocks = (cols + SP_SCALE_BLOCK - 1) / SP_SCALE_BLOCK;
  const typename D::T* w = static_cast<const typename D::T*>(m->data) + row * cols;
  Vec total[R][T] = {};
  float tail[R][T] = {};
  if (m->scale) {
    const float* scale[R];
    for (int r = 0; r < R; r++) scale[r] = m->scale + (row + r) / SP_SCALE_BLOCK * blocks;
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t end = (b + 1) * SP_SCALE_BLOCK;
      tile_block<D, R, T>(w, cols, x, ldx, b * SP_SCALE_BLOCK, end < cols ? end : cols, scale, b, total, tail);
    }
  } else {
    tile_block<D, R, T>(w, cols, x, ldx, 0, cols, nullptr, 0, total, tail);
  }
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) y[t * ldy + row + r] = sum_lanes(total[r][t]) + tail[r][t];
  }
}

template <class D, int R>
SP_INLINE void rows_of(const SpMatrix* m, int32_t row, const float* x, int64_t ldx, int32_t n, float* y, int64_t ldy) {
  int32_t t = 0;
  for (; t + 4 <= n; t += 4) tile<D, R, 4>(m, row, x + t * ldx, ldx, y + t * ldy, ldy);
  for (; t < n; t++) tile<D, R, 1>(m, row, x + t * ldx, ldx, y + t * ldy, ldy);
}

template <class D>
static void matmul(const SpMatrix* m, const float* x, int64_t ldx, int32_t n, int32_t row_begin, int32_t row_end,
                   float* y, int64_t ldy) {
  int32_t row = row_begin;
  for (; row + SP_TILE_ROWS <= row_end; row += SP_TILE_ROWS) rows_of<D, SP_TILE_ROWS>(m, row, x, ldx, n, y, ldy);
  for (; row < row_end; row++) rows_of<D, 1>(m, row, x, ldx, n, y, ldy);
}

static void matmul_any(const SpMatrix* m, const float* x, int64_t ldx, int32_t n, int32_t row_begin, int32_t row_end,
                       float* y, int64_t ldy) {
  if (m->dtype == SP_BF16)
    matmul<BF16>(m, x, ldx, n, row_begin, row_end, y, ldy);
  else if (m->dtype == SP_F32)
    matmul<F32>(m, x, ldx, n, row_begin, row_end, y, ldy);
  else
    matmul<E4M3>(m, x, ldx, n, row_begin, row_end, y, ldy);
}

}  // namespace
