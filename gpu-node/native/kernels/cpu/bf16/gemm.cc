// Matrix product of packed weights: lanes are rows, activations are broadcast pairs (vdpbf16ps). FP8 is widened to
// BF16, which is exact, one 128-column group at a time; its scale multiplies the group's sum. `exact` weights meet fp32
// activations.
#include <immintrin.h>

#include "kernels.h"

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

constexpr int kTokens = 6, kPanel = SP_PANEL_BLOCKS, kGroupPairs = SP_SCALE_BLOCK / 2;
typedef int32_t Pair __attribute__((may_alias, aligned(2)));

SP_INLINE __mmask16 lanes(int32_t rows) {
  return rows >= SP_LANES ? 0xFFFF : static_cast<__mmask16>((1u << rows) - 1);
}

struct Out {
  float* y;
  int64_t ldy;
  int32_t rows;        // of the whole panel
  const float* scale;  // of each block, or null: y = sum; else y += scale * sum
  bool first;          // y holds nothing yet
};

template <int R, int T>
SP_INLINE void put(const Out& out, __m512 (&sum)[R][T]) {
  for (int r = 0; r < R; r++) {
    const __mmask16 mask = lanes(out.rows - r * SP_LANES);
    for (int t = 0; t < T; t++) {
      float* y = out.y + t * out.ldy + r * SP_LANES;
      if (out.scale) {
        const __m512 scale = _mm512_set1_ps(out.scale[r]);
        const __m512 so_far = out.first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, y);
        sum[r][t] = _mm512_fmadd_ps(sum[r][t], scale, so_far);
      }
      _mm512_mask_storeu_ps(y, mask, sum[r][t]);
    }
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
    for (int r = 0; r < R; r++) rows[r] = (__m512bh)_mm512_load_si512(w + r * stride + k * 32);
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

/// All tokens of a panel of R blocks.
template <class K, int R>
static void panel(const typename K::W* w, int64_t stride, int32_t depth, const typename K::X* x, int64_t ldx, int32_t n,
                  Out out) {
  int32_t t = 0;
  for (; t + kTokens <= n; t += kTokens, x += kTokens * ldx, out.y += kTokens * out.ldy)
    K::template tile<R, kTokens>(w, stride, depth, x, ldx, out);
  switch (n - t) {
    case 5:
      return K::template tile<R, 5>(w, stride, depth, x, ldx, out);
    case 4:
      return K::template tile<R, 4>(w, stride, depth, x, ldx, out);
    case 3:
      return K::template tile<R, 3>(w, stride, depth, x, ldx, out);
    case 2:
      return K::template tile<R, 2>(w, stride, depth, x, ldx, out);
    case 1:
      return K::template tile<R, 1>(w, stride, depth, x, ldx, out);
    default:
      return;
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

/// 64 E4M3 codes to 64 BF16, in order. The high byte comes from a table of 128; the low byte is exponent's last bit and
/// mantissa for normal codes, and a table for the eight subnormal ones.
SP_INLINE void widen_e4m3(const uint8_t* from, uint16_t* to) {
  // Filled by value: bf16 of (-1)^s * 2^(e - 7) * (1 + m / 8), or m * 2^-9 when e is 0.
  const __m512i codes = _mm512_loadu_si512(from);
  const __m512i low7 = _mm512_and_si512(codes, _mm512_set1_epi8(0x7F));
  for (int half = 0; half < 2; half++) {
    const __m256i part = half ? _mm512_extracti64x4_epi64(low7, 1) : _mm512_castsi512_si256(low7);
    const __m256i all = half ? _mm512_extracti64x4_epi64(codes, 1) : _mm512_castsi512_si256(codes);
    const __m512i wide = _mm512_cvtepu8_epi16(part);
    const __m512i sign = _mm512_slli_epi16(_mm512_and_si512(_mm512_cvtepu8_epi16(all), _mm512_set1_epi16(0x80)), 8);
    // Normal: exponent and mantissa move up four bits, the bias grows by 120.
    const __m512i normal = _mm512_add_epi16(_mm512_slli_epi16(wide, 4), _mm512_set1_epi16(120 << 7));
    // Subnormal m * 2^-9 for m = 0 .. 7, as BF16.
    const __m512i small = _mm512_permutexvar_epi16(
        wide, _mm512_castsi128_si512(_mm_setr_epi16(0x0000, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60)));
    const __mmask32 is_small = _mm512_cmplt_epu16_mask(wide, _mm512_set1_epi16(8));
    _mm512_store_si512(to + half * 32, _mm512_or_si512(sign, _mm512_mask_mov_epi16(normal, is_small, small)));
  }
}

/// FP8: each group of 128 columns is widened once for all tokens.
static void gemm_e4m3(const SpPacked* w, int32_t begin, int32_t count, int32_t rows, const SpInput* x, float* y,
                      int64_t ldy) {
  alignas(64) uint16_t wide[kPanel * kGroupPairs * 32];
  const int64_t groups = (w->pairs + kGroupPairs - 1) / kGroupPairs;
  for (int64_t g = 0; g < groups; g++) {
    const int32_t pairs = w->pairs - g * kGroupPairs < kGroupPairs ? w->pairs - g * kGroupPairs : kGroupPairs;
    float scale[kPanel];
    for (int32_t r = 0; r < count; r++) {
      const uint8_t* from = w->data + (begin + r) * w->block_bytes + g * kGroupPairs * 32;
      for (int32_t k = 0; k < pairs; k += 2) widen_e4m3(from + k * 32, wide + (r * kGroupPairs + k) * 32);
      scale[r] = w->scale[int64_t{begin + r} * SP_LANES / SP_SCALE_BLOCK * groups + g];
    }
    const Out out = {y, ldy, rows, scale, g == 0};
    if (w->exact) {
      const int32_t left = w->cols - g * SP_SCALE_BLOCK, cols = left < SP_SCALE_BLOCK ? left : SP_SCALE_BLOCK;
      panels<Exact>(count, wide, kGroupPairs * 32, cols, x->full + g * SP_SCALE_BLOCK, x->ld_full, x->n, out);
      continue;
    }
    panels<Half>(count, wide, kGroupPairs * 32, pairs, x->half + g * SP_SCALE_BLOCK, x->ld_half, x->n, out);
  }
}

}  // namespace

void sp_gemm_bf16(const SpPacked* w, int32_t begin, int32_t count, int32_t rows, const SpInput* x, float* y,
                  int64_t ldy) {
  const uint8_t* from = w->data + begin * w->block_bytes;
  const Out out = {y, ldy, rows, nullptr, true};
  if (w->dtype == SP_F8_E4M3) return gemm_e4m3(w, begin, count, rows, x, y, ldy);
  if (w->dtype == SP_F32)
    return panels<Float>(count, (const float*)from, w->block_bytes / 4, w->cols, x->full, x->ld_full, x->n, out);
  if (w->exact)
    return panels<Exact>(count, (const uint16_t*)from, w->block_bytes / 2, w->cols, x->full, x->ld_full, x->n, out);
  panels<Half>(count, (const uint16_t*)from, w->block_bytes / 2, w->pairs, x->half, x->ld_half, x->n, out);
}
