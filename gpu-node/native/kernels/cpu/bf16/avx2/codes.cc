// Products of quantised weights on AVX2. vpmaddubsw adds two products in 16 bits, which whole bytes would overflow, so
// weights are taken by nibbles: 8 quads of columns times 2 products of at most 15 * 127 fit. int8 weights are
// 16 * high + low. Otherwise as bf16/codes.cc.
#include <math.h>

#include "kernels_avx2.h"
#include "lanes.h"

namespace {

typedef int32_t Quad __attribute__((may_alias, aligned(1)));
constexpr int kQuads = SP_STRETCH / 4;
constexpr float kLeast = 1e-36f;  // 127 divided by less is no number

/// int8: a line of 64 bytes is a quad of columns of 16 rows, of which both nibbles meet the same activations.
struct Bytes {
  static constexpr int kParts = 2, kQuadsPerLine = 1, kOffsetBits = 7, kTokens = 3;
  SP_INLINE int quad_of(int) { return 0; }
  SP_INLINE __m256i sum(const __m256i (&part)[kParts]) {
    return _mm256_add_epi32(_mm256_madd_epi16(part[0], _mm256_set1_epi16(1)),
                            _mm256_madd_epi16(part[1], _mm256_set1_epi16(16)));
  }
};

/// int4: two quads, the first in the low bits.
struct Nibbles {
  static constexpr int kParts = 1, kQuadsPerLine = 2, kOffsetBits = 3, kTokens = 4;
  SP_INLINE int quad_of(int nibble) { return nibble; }
  SP_INLINE __m256i sum(const __m256i (&part)[kParts]) { return _mm256_madd_epi16(part[0], _mm256_set1_epi16(1)); }
};

/// Blocks of a panel: bytes and rows from one to the next, rows left from the first on.
struct Part {
  const uint8_t* from;
  int64_t stride;
  int32_t step, rows;
};

/// Half a block (8 rows) by T tokens over one stretch: exact integer sums without the offset.
template <class C, int T>
SP_INLINE void dot_stretch(const uint8_t* lines, const int8_t* codes, int64_t ld, __m256i (&dot)[T]) {
  constexpr int kLines = kQuads / C::kQuadsPerLine;
  const __m256i low = _mm256_set1_epi8(15);
  __m256i part[T][C::kParts];
  for (int t = 0; t < T; t++) {
    for (int i = 0; i < C::kParts; i++) part[t][i] = _mm256_setzero_si256();
  }
  for (int line = 0; line < kLines; line++) {
    const __m256i both = _mm256_loadu_si256((const __m256i*)(lines + line * 64));
    const __m256i nibble[2] = {_mm256_and_si256(both, low), _mm256_and_si256(_mm256_srli_epi16(both, 4), low)};
    for (int i = 0; i < 2; i++) {
      const int64_t at = (line * C::kQuadsPerLine + C::quad_of(i)) * 4;
      for (int t = 0; t < T; t++) {
        __m256i& sum = part[t][i % C::kParts];
        const __m256i quad = _mm256_set1_epi32(*(const Quad*)(codes + t * ld + at));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(nibble[i], quad));
      }
    }
  }
  for (int t = 0; t < T; t++) dot[t] = C::sum(part[t]);
}

/// R blocks by T tokens over all stretches.
template <class C, int R, int T>
static void tile(const SpPacked* w, const Part& part, const SpCodes* x, int64_t token, float* y, int64_t ldy) {
  constexpr int kLines = kQuads / C::kQuadsPerLine;
  const int64_t stretches = x->ld / SP_STRETCH, per_scale = w->group / SP_STRETCH;
  const int8_t* codes = x->codes + token * x->ld;
  const float* scales = x->scales + token * stretches;
  const int32_t* sums = x->sums + token * stretches;
  __m256 total[R][2][T];
  for (int r = 0; r < R; r++) {
    for (int half = 0; half < 2; half++) {
      for (int t = 0; t < T; t++) total[r][half][t] = _mm256_setzero_ps();
    }
  }
  for (int64_t s = 0; s < stretches; s++) {
    for (int r = 0; r < R; r++) {
      const uint8_t* block = part.from + r * part.stride;
      const uint8_t* scale_at = block + w->scales_at + s / per_scale * SP_LANES * sizeof(uint16_t);
      if (T == 1) {
        for (int line = 0; line < kLines; line += 2) __builtin_prefetch(block + (s * kLines + line) * 64 + 1024);
      }
      for (int half = 0; half < 2; half++) {
        __m256i dot[T];
        dot_stretch<C, T>(block + s * kLines * 64 + half * 32, codes + s * SP_STRETCH, x->ld, dot);
        const __m256 scale = load_bf16((const uint16_t*)scale_at + half * 8);
        for (int t = 0; t < T; t++) {
          const __m256i start = _mm256_set1_epi32(-(sums[t * stretches + s] << C::kOffsetBits));
          const __m256 sum = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(dot[t], start)), scale);
          total[r][half][t] = _mm256_fmadd_ps(sum, _mm256_set1_ps(scales[t * stretches + s]), total[r][half][t]);
        }
      }
    }
  }
  for (int r = 0; r < R; r++) {
    const int32_t rows = part.rows - r * part.step;
    for (int half = 0; half < 2; half++) {
      for (int t = 0; t < T; t++)
        store_left(y + (token + t) * ldy + r * part.step + half * 8, rows - half * 8, total[r][half][t]);
    }
  }
}

template <class C, int R>
static void panel(const SpPacked* w, const Part& part, const SpCodes* x, float* y, int64_t ldy) {
  int64_t token = 0;
  for (int64_t tiles = (x->n + C::kTokens - 1) / C::kTokens; tiles > 0; tiles--) {
    const int64_t count = (x->n - token + tiles - 1) / tiles;
    if (count == 4)
      tile<C, R, 4>(w, part, x, token, y, ldy);
    else if (count == 3)
      tile<C, R, 3>(w, part, x, token, y, ldy);
    else if (count == 2)
      tile<C, R, 2>(w, part, x, token, y, ldy);
    else
      tile<C, R, 1>(w, part, x, token, y, ldy);
    token += count;
  }
}

template <class C>
static void panels(const SpPacked* w, const SpPanel& p, const SpCodes* x, float* y, int64_t ldy) {
  const Part part = {w->data + p.begin * w->block_bytes, p.step * w->block_bytes, p.step * SP_LANES, p.rows};
  if (p.count == 4) return panel<C, 4>(w, part, x, y, ldy);
  if (p.count == 3) return panel<C, 3>(w, part, x, y, ldy);
  if (p.count == 2) return panel<C, 2>(w, part, x, y, ldy);
  panel<C, 1>(w, part, x, y, ldy);
}

}  // namespace

void sp_gemm_codes_avx2(const SpPacked* w, const SpPanel* p, const SpCodes* x, float* y, int64_t ldy) {
  if (w->dtype == SP_I4) return panels<Nibbles>(w, *p, x, y, ldy);
  panels<Bytes>(w, *p, x, y, ldy);
}

void sp_quantize_row_avx2(const float* x, int64_t cols, int8_t* codes, float* scales, int32_t* sums) {
  for (int64_t s = 0; s * SP_STRETCH < cols; s++) {
    const int64_t left = cols - s * SP_STRETCH;
    __m256 v[4], most = _mm256_setzero_ps(), nan = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
      v[i] = load_left(x + s * SP_STRETCH + i * 8, left - i * 8);
      most = _mm256_max_ps(most, size_of(v[i]));
      nan = _mm256_or_ps(nan, _mm256_cmp_ps(v[i], v[i], _CMP_UNORD_Q));
    }
    const float largest = largest_lane(most);
    const __m256 inverse = _mm256_set1_ps(largest > kLeast ? 127.0f / largest : 0.0f);
    __m256i code[4], sum = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
      const __m256 part = _mm256_mul_ps(v[i], inverse);
      // What is no number gets code 0, so that sums stay small; the scale tells.
      code[i] = _mm256_cvtps_epi32(_mm256_and_ps(part, _mm256_cmp_ps(part, part, _CMP_ORD_Q)));
      sum = _mm256_add_epi32(sum, code[i]);
    }
    // Packing works within 128 bits: words 0-3 of each of the four, then words 4-7.
    const __m256i mixed =
        _mm256_packs_epi16(_mm256_packs_epi32(code[0], code[1]), _mm256_packs_epi32(code[2], code[3]));
    const __m256i order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
    _mm256_storeu_si256((__m256i*)(codes + s * SP_STRETCH), _mm256_permutevar8x32_epi32(mixed, order));
    // A maximum may lose a NaN: it makes the whole stretch NaN, as the sampler expects of a broken model.
    scales[s] = _mm256_movemask_ps(nan) ? NAN : largest / 127.0f;
    sums[s] = sum_lanes(sum);
  }
}
