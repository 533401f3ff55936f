// Matrix product of packed BF16 weights: lanes are rows, activations are broadcast pairs (vdpbf16ps). `exact` weights,
// BF16 or fp32, meet fp32 activations.
#include <immintrin.h>

#include "kernels.h"

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

constexpr int kTokens = SP_TILE_TOKENS;
constexpr int64_t kAhead = 512;  // halves
typedef int32_t Pair __attribute__((may_alias, aligned(2)));

SP_INLINE __mmask16 lanes(int32_t rows) {
  return rows >= SP_LANES ? 0xFFFF : static_cast<__mmask16>((1u << rows) - 1);
}

struct Out {
  float* y;
  int64_t ldy;
  int32_t step;  // rows from a block of the panel to the next
  int32_t rows;  // left from the first block on
};

template <int R, int T>
SP_INLINE void put(const Out& out, const __m512 (&sum)[R][T]) {
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++)
      _mm512_mask_storeu_ps(out.y + t * out.ldy + r * out.step, lanes(out.rows - r * out.step), sum[r][t]);
  }
}

/// R blocks by T tokens over `pairs` column pairs; block r of the weights is `stride` halves after block r - 1.
template <int R, int T>
SP_INLINE void tile_half(const uint16_t* w, int64_t stride, int32_t pairs, const uint16_t* x, int64_t ldx,
                         const Out& out) {
  __m512 sum[R][T];
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) sum[r][t] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < pairs; k++) {
    __m512bh rows[R];
    for (int r = 0; r < R; r++) {
      // Into the second level: the first can wait for too few lines at once.
      if (T <= SP_FEW_TOKENS) __builtin_prefetch(w + r * stride + k * 32 + kAhead, 0, 2);
      rows[r] = (__m512bh)_mm512_load_si512(w + r * stride + k * 32);
    }
    for (int t = 0; t < T; t++) {
      const __m512bh pair = (__m512bh)_mm512_set1_epi32(*(const Pair*)(x + t * ldx + 2 * k));
      for (int r = 0; r < R; r++) sum[r][t] = _mm512_dpbf16_ps(sum[r][t], rows[r], pair);
    }
  }
  put<R, T>(out, sum);
}

/// The same with fp32 activations: even columns are the low halves of a lane, odd ones the high halves.
template <int R, int T>
SP_INLINE void tile_exact(const uint16_t* w, int64_t stride, int32_t cols, const float* x, int64_t ldx,
                          const Out& out) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  __m512 sum[R][T];
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) sum[r][t] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < cols; k += 2) {
    __m512 even[R], odd[R];
    for (int r = 0; r < R; r++) {
      const __m512i pair = _mm512_load_si512(w + r * stride + k * 16);
      if (T <= SP_FEW_TOKENS) __builtin_prefetch(w + r * stride + k * 16 + kAhead, 0, 2);
      even[r] = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
      odd[r] = _mm512_castsi512_ps(_mm512_and_si512(pair, high));
    }
    for (int t = 0; t < T; t++) {
      const __m512 a = _mm512_set1_ps(x[t * ldx + k]), b = _mm512_set1_ps(k + 1 < cols ? x[t * ldx + k + 1] : 0.0f);
      for (int r = 0; r < R; r++) sum[r][t] = _mm512_fmadd_ps(odd[r], b, _mm512_fmadd_ps(even[r], a, sum[r][t]));
    }
  }
  put<R, T>(out, sum);
}

template <int R, int T>
SP_INLINE void tile_float(const float* w, int64_t stride, int32_t cols, const float* x, int64_t ldx, const Out& out) {
  __m512 sum[R][T];
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) sum[r][t] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < cols; k++) {
    for (int r = 0; r < R; r++) {
      const __m512 row = _mm512_load_ps(w + r * stride + k * SP_LANES);
      for (int t = 0; t < T; t++) sum[r][t] = _mm512_fmadd_ps(row, _mm512_set1_ps(x[t * ldx + k]), sum[r][t]);
    }
  }
  put<R, T>(out, sum);
}

struct Half {
  typedef uint16_t W;
  typedef uint16_t X;
  template <int R, int T>
  SP_INLINE void tile(const W* w, int64_t stride, int32_t depth, const X* x, int64_t ldx, const Out& out) {
    tile_half<R, T>(w, stride, depth, x, ldx, out);
  }
};
struct Exact {
  typedef uint16_t W;
  typedef float X;
  template <int R, int T>
  SP_INLINE void tile(const W* w, int64_t stride, int32_t depth, const X* x, int64_t ldx, const Out& out) {
    tile_exact<R, T>(w, stride, depth, x, ldx, out);
  }
};
struct Float {
  typedef float W;
  typedef float X;
  template <int R, int T>
  SP_INLINE void tile(const W* w, int64_t stride, int32_t depth, const X* x, int64_t ldx, const Out& out) {
    tile_float<R, T>(w, stride, depth, x, ldx, out);
  }
};

/// All tokens of a panel of R blocks, in tiles of nearly equal size: small ones would wait for their own sums.
template <class K, int R>
static void panel(const typename K::W* w, int64_t stride, int32_t depth, const typename K::X* x, int64_t ldx, int32_t n,
                  Out out) {
  for (int32_t tiles = (n + kTokens - 1) / kTokens; tiles > 0; tiles--) {
    const int32_t count = (n + tiles - 1) / tiles;
    switch (count) {
      case 6:
        K::template tile<R, 6>(w, stride, depth, x, ldx, out);
        break;
      case 5:
        K::template tile<R, 5>(w, stride, depth, x, ldx, out);
        break;
      case 4:
        K::template tile<R, 4>(w, stride, depth, x, ldx, out);
        break;
      case 3:
        K::template tile<R, 3>(w, stride, depth, x, ldx, out);
        break;
      case 2:
        K::template tile<R, 2>(w, stride, depth, x, ldx, out);
        break;
      default:
        K::template tile<R, 1>(w, stride, depth, x, ldx, out);
    }
    n -= count;
    x += count * ldx;
    out.y += count * out.ldy;
  }
}

template <class K>
static void panels(int32_t count, const typename K::W* w, int64_t stride, int32_t depth, const typename K::X* x,
                   int64_t ldx, int32_t n, const Out& out) {
  if (count == 4) return panel<K, 4>(w, stride, depth, x, ldx, n, out);
  if (count == 3) return panel<K, 3>(w, stride, depth, x, ldx, n, out);
  if (count == 2) return panel<K, 2>(w, stride, depth, x, ldx, n, out);
  panel<K, 1>(w, stride, depth, x, ldx, n, out);
}

}  // namespace

void sp_gemm_bf16(const SpPacked* w, const SpPanel* p, const SpInput* x, float* y, int64_t ldy) {
  const uint8_t* from = w->data + p->begin * w->block_bytes;
  const int64_t stride = p->step * w->block_bytes;
  const Out out = {y, ldy, p->step * SP_LANES, p->rows};
  if (w->exact && w->dtype == SP_F32)
    return panels<Float>(p->count, (const float*)from, stride / 4, w->cols, x->full, x->ld_full, x->n, out);
  if (w->exact)
    return panels<Exact>(p->count, (const uint16_t*)from, stride / 2, w->cols, x->full, x->ld_full, x->n, out);
  panels<Half>(p->count, (const uint16_t*)from, stride / 2, w->pairs, x->half, x->ld_half, x->n, out);
}
