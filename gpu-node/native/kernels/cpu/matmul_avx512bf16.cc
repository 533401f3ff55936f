// Matrix product for avx512bf16: BF16 weights against activations rounded to BF16, as the published model computes
// them, two products a lane and instruction (vdpbf16ps). Half the arithmetic of avx512, some three decimal digits less;
// chosen by name.
#include <immintrin.h>

#include "ops.h"

namespace {

constexpr int kLanes = 32;

/// 32 activations as BF16, in order; a partial load fills with zeros.
static inline __m512bh load_x(const float* x, int64_t left) {
  const __mmask16 low = left >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
  const __mmask16 high = left >= 32 ? 0xFFFF : left <= 16 ? 0 : static_cast<__mmask16>((1u << (left - 16)) - 1);
  const __m512 a = _mm512_maskz_loadu_ps(low, x), b = high ? _mm512_maskz_loadu_ps(high, x + 16) : _mm512_setzero_ps();
  return _mm512_cvtne2ps_pbh(b, a);
}

static inline __m512bh load_w(const uint16_t* w, int64_t left) {
  const __mmask32 mask = left >= 32 ? 0xFFFFFFFF : (1u << left) - 1;
  return reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(mask, w));
}

/// Lanes added pairwise, always in the same order.
static inline float sum_lanes(__m512 v) {
  float lanes[16];
  _mm512_storeu_ps(lanes, v);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

/// R rows by T tokens; each (row, token) has one accumulator and one order of additions in every tile.
template <int R, int T>
static inline __attribute__((always_inline)) void tile(const uint16_t* w, int64_t cols, const float* x, int64_t ldx,
                                                       float* y, int64_t ldy) {
  __m512 sum[R][T];
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) sum[r][t] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < cols; k += kLanes) {
    __m512bh xs[T];
    for (int t = 0; t < T; t++) xs[t] = load_x(x + t * ldx + k, cols - k);
    for (int r = 0; r < R; r++) {
      const __m512bh row = load_w(w + r * cols + k, cols - k);
      for (int t = 0; t < T; t++) sum[r][t] = _mm512_dpbf16_ps(sum[r][t], row, xs[t]);
    }
  }
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) y[t * ldy + r] = sum_lanes(sum[r][t]);
  }
}

template <int R>
static inline __attribute__((always_inline)) void rows_of(const uint16_t* w, int64_t cols, const float* x, int64_t ldx,
                                                          int32_t n, float* y, int64_t ldy) {
  int32_t t = 0;
  for (; t + 4 <= n; t += 4) tile<R, 4>(w, cols, x + t * ldx, ldx, y + t * ldy, ldy);
  for (; t < n; t++) tile<R, 1>(w, cols, x + t * ldx, ldx, y + t * ldy, ldy);
}

}  // namespace

void sp_matmul_avx512bf16(const SpMatrix* m, const float* x, int64_t ldx, int32_t n, int32_t row_begin, int32_t row_end,
                          float* y, int64_t ldy) {
  if (m->dtype != SP_BF16 || m->exact) return sp_matmul_avx512(m, x, ldx, n, row_begin, row_end, y, ldy);
  const uint16_t* w = static_cast<const uint16_t*>(m->data);
  int32_t row = row_begin;
  for (; row + 4 <= row_end; row += 4) rows_of<4>(w + int64_t{row} * m->cols, m->cols, x, ldx, n, y + row, ldy);
  for (; row < row_end; row++) rows_of<1>(w + int64_t{row} * m->cols, m->cols, x, ldx, n, y + row, ldy);
}
