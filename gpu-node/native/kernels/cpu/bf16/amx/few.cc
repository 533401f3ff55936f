// The product of a few tokens without tiles: weights that come from memory come faster to AVX-512. The arithmetic is
// that of tdpbf16ps to the last bit (Intel's manual, volume 2): for 16 pairs of columns the even products add up from
// zero, and the odd ones, each by a fused multiplication; their sum is added to what was there. Subnormal numbers count
// as zeros.
#include "few.h"

#include <immintrin.h>

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

typedef int32_t Pair __attribute__((may_alias, aligned(2)));
constexpr int64_t kTilePairs = 16, kAhead = 1024;  // bytes of a block that are asked for before they are needed
constexpr unsigned kNoSubnormals = 0x8040;         // flush to zero, denormals are zeros

SP_INLINE __m512 even_of(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}
SP_INLINE __m512 odd_of(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
}

/// R blocks by T tokens. A function of its own, so that no arithmetic moves out of the mode it is meant for.
template <int R, int T>
__attribute__((noinline)) static void tile(const SpFew& f, int64_t block, float* const* y, int64_t step, int64_t rows) {
  const uint8_t* from = f.weights + block * f.stride;
  __m512 sum[R][T];
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) sum[r][t] = _mm512_setzero_ps();
  }
  for (int64_t begin = 0; begin < f.pairs; begin += kTilePairs) {
    const int64_t end = begin + kTilePairs < f.pairs ? begin + kTilePairs : f.pairs;
    __m512 even[R][T], odd[R][T];
    for (int r = 0; r < R; r++) {
      for (int t = 0; t < T; t++) even[r][t] = odd[r][t] = _mm512_setzero_ps();
    }
    for (int64_t k = begin; k < end; k++) {
      __m512 a[T], b[T];
      for (int t = 0; t < T; t++) {
        const __m512i x = _mm512_set1_epi32(*(const Pair*)(f.tokens + t * f.ld + 2 * k));
        a[t] = even_of(x), b[t] = odd_of(x);
      }
      for (int r = 0; r < R; r++) {
        const uint8_t* line = from + r * f.stride + k * 64;
        __builtin_prefetch(line + kAhead);
        const __m512i w = _mm512_load_si512(line);
        const __m512 we = even_of(w), wo = odd_of(w);
        for (int t = 0; t < T; t++) {
          even[r][t] = _mm512_fmadd_ps(a[t], we, even[r][t]);
          odd[r][t] = _mm512_fmadd_ps(b[t], wo, odd[r][t]);
        }
      }
    }
    for (int r = 0; r < R; r++) {
      for (int t = 0; t < T; t++) sum[r][t] = _mm512_add_ps(sum[r][t], _mm512_add_ps(even[r][t], odd[r][t]));
    }
  }
  for (int r = 0; r < R; r++) {
    const int64_t left = rows - r * step;
    const __mmask16 mask = static_cast<__mmask16>(left >= SP_LANES ? 0xFFFF : left <= 0 ? 0 : (1 << left) - 1);
    for (int t = 0; t < T; t++) _mm512_mask_storeu_ps(y[t] + r * step, mask, sum[r][t]);
  }
}

/// Four blocks at once, or two where registers would not do.
template <int T>
static void panel(const SpFew& f, int32_t blocks, float* y, int64_t ldy, int64_t step, int64_t rows) {
  constexpr int kBlocks = T > 2 ? 2 : 4;
  for (int32_t b = 0; b < blocks;) {
    float* out[T];
    for (int t = 0; t < T; t++) out[t] = y + t * ldy + b * step;
    const int32_t left = blocks - b;
    if (left >= kBlocks)
      tile<kBlocks, T>(f, b, out, step, rows - b * step), b += kBlocks;
    else if (left >= 2)
      tile<2, T>(f, b, out, step, rows - b * step), b += 2;
    else
      tile<1, T>(f, b, out, step, rows - b * step), b += 1;
  }
}

}  // namespace

void sp_multiply_few(const SpFew& f, int32_t n, int32_t blocks, float* y, int64_t ldy, int64_t step, int64_t rows) {
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | kNoSubnormals);
  if (n == 1) panel<1>(f, blocks, y, ldy, step, rows);
  if (n == 2) panel<2>(f, blocks, y, ldy, step, rows);
  if (n == 3) panel<3>(f, blocks, y, ldy, step, rows);
  _mm_setcsr(before);
}
