// Products of quantised weights: activations become int8 with a multiplier for every 32 columns, lanes are rows,
// four columns a vpdpbusd. Weights are stored unsigned (code + 128, code + 8); a stretch starts at minus that offset
// times the sum of its activation codes. Integer sums are exact; stretches add up in fp32, always in the same order.
#include <immintrin.h>
#include <math.h>

#include "kernels.h"

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

typedef int32_t Quad __attribute__((may_alias, aligned(1)));
constexpr int kQuads = SP_STRETCH / 4;
constexpr float kLeast = 1e-36f;  // 127 divided by less is no number

SP_INLINE __mmask16 lanes(int32_t rows) {
  return rows >= SP_LANES ? 0xFFFF : static_cast<__mmask16>((1u << rows) - 1);
}

/// int8: a line of 64 bytes is a quad of columns of 16 rows.
struct Bytes {
  static constexpr int kQuadsPerLine = 1, kOffsetBits = 7;
  SP_INLINE void unpack(const uint8_t* line, __m512i (&quads)[kQuadsPerLine]) { quads[0] = _mm512_loadu_si512(line); }
};

/// int4: two quads, the first in the low bits.
struct Nibbles {
  static constexpr int kQuadsPerLine = 2, kOffsetBits = 3;
  SP_INLINE void unpack(const uint8_t* line, __m512i (&quads)[kQuadsPerLine]) {
    const __m512i both = _mm512_loadu_si512(line), low = _mm512_set1_epi8(15);
    quads[0] = _mm512_and_si512(both, low);
    quads[1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
  }
};

SP_INLINE __m512 load_scale(const uint8_t* from) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16));
}

/// Blocks of a panel: bytes and rows from one to the next, rows left from the first on.
struct Part {
  const uint8_t* from;
  int64_t stride;
  int32_t step, rows;
};

/// Asks for a line of each of R blocks that few tokens would wait for, into the second level: the first can wait for
/// too few at once.
template <int R, int T>
SP_INLINE void prefetch(const uint8_t* at, int64_t stride) {
  constexpr int64_t kAhead = 1024;
  for (int r = 0; r < R && T <= SP_FEW_TOKENS; r++) __builtin_prefetch(at + r * stride + kAhead, 0, 2);
}

/// R blocks by T tokens over all stretches.
template <class C, int R, int T>
SP_INLINE void tile(const SpPacked* w, const Part& part, const SpCodes* x, int64_t token, float* y, int64_t ldy) {
  constexpr int kLines = kQuads / C::kQuadsPerLine;
  const int64_t stretches = x->ld / SP_STRETCH, per_scale = w->group / SP_STRETCH, unit = 2 * per_scale;
  const int8_t* codes = x->codes + token * x->ld;
  const float* scales = x->scales + token * stretches;
  const int32_t* sums = x->sums + token * stretches;
  __m512 total[R][T];
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) total[r][t] = _mm512_setzero_ps();
  }
  const uint8_t* at = part.from;
  const uint8_t* multipliers = nullptr;
  for (int64_t s = 0, in_unit = 0; s < stretches; s++, at += kLines * 64) {
    if (in_unit == 0) {
      prefetch<R, T>(at, part.stride);
      multipliers = at, at += 64;
    }
    __m512i dot[R][T];
    for (int t = 0; t < T; t++) {
      const __m512i start = _mm512_set1_epi32(-(sums[t * stretches + s] << C::kOffsetBits));
      for (int r = 0; r < R; r++) dot[r][t] = start;
    }
    for (int line = 0; line < kLines; line++) {
      __m512i quads[R][C::kQuadsPerLine];
      prefetch<R, T>(at + line * 64, part.stride);
      for (int r = 0; r < R; r++) C::unpack(at + r * part.stride + line * 64, quads[r]);
      for (int i = 0; i < C::kQuadsPerLine; i++) {
        const int64_t column = s * SP_STRETCH + (line * C::kQuadsPerLine + i) * 4;
        for (int t = 0; t < T; t++) {
          const __m512i quad = _mm512_set1_epi32(*(const Quad*)(codes + t * x->ld + column));
          for (int r = 0; r < R; r++) dot[r][t] = _mm512_dpbusd_epi32(dot[r][t], quads[r][i], quad);
        }
      }
    }
    for (int r = 0; r < R; r++) {
      const __m512 scale = load_scale(multipliers + r * part.stride);
      for (int t = 0; t < T; t++) {
        const __m512 sum = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[r][t]), scale);
        total[r][t] = _mm512_fmadd_ps(sum, _mm512_set1_ps(scales[t * stretches + s]), total[r][t]);
      }
    }
    if (++in_unit == per_scale) multipliers += SP_LANES * sizeof(uint16_t);
    if (in_unit == unit) in_unit = 0;
  }
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++)
      _mm512_mask_storeu_ps(y + (token + t) * ldy + r * part.step, lanes(part.rows - r * part.step), total[r][t]);
  }
}

template <class C, int R>
static void panel(const SpPacked* w, const Part& part, const SpCodes* x, float* y, int64_t ldy) {
  int64_t token = 0;
  for (int32_t tiles = (x->n + SP_TILE_TOKENS - 1) / SP_TILE_TOKENS; tiles > 0; tiles--) {
    const int64_t count = (x->n - token + tiles - 1) / tiles;
    if (count == 6)
      tile<C, R, 6>(w, part, x, token, y, ldy);
    else if (count == 5)
      tile<C, R, 5>(w, part, x, token, y, ldy);
    else if (count == 4)
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

/// Four blocks at a time while a token or two leave the registers for it, else two.
template <class C>
static void panels(const SpPacked* w, const SpPanel& p, const SpCodes* x, float* y, int64_t ldy) {
  Part part = {w->data + p.begin * w->block_bytes, p.step * w->block_bytes, p.step * SP_LANES, p.rows};
  if (p.count == 4 && x->n == 2) return tile<C, 4, 2>(w, part, x, 0, y, ldy);
  if (p.count == 4 && x->n == 1) return tile<C, 4, 1>(w, part, x, 0, y, ldy);
  for (int32_t done = 0; done < p.count; done += 2) {
    if (p.count - done >= 2)
      panel<C, 2>(w, part, x, y, ldy);
    else
      panel<C, 1>(w, part, x, y, ldy);
    part.from += 2 * part.stride;
    part.rows -= 2 * part.step;
    y += 2 * part.step;
  }
}

}  // namespace

void sp_gemm_codes(const SpPacked* w, const SpPanel* p, const SpCodes* x, float* y, int64_t ldy) {
  if (w->dtype == SP_I4) return panels<Nibbles>(w, *p, x, y, ldy);
  panels<Bytes>(w, *p, x, y, ldy);
}

void sp_quantize_row(const float* x, int64_t cols, int8_t* codes, float* scales, int32_t* sums) {
  for (int64_t s = 0; s * SP_STRETCH < cols; s++) {
    const int64_t left = cols - s * SP_STRETCH;
    const float* from = x + s * SP_STRETCH;
    const __m512 a = _mm512_maskz_loadu_ps(lanes(left < 16 ? static_cast<int32_t>(left) : 16), from);
    const __m512 b = left > 16
                         ? _mm512_maskz_loadu_ps(lanes(left < 32 ? static_cast<int32_t>(left - 16) : 16), from + 16)
                         : _mm512_setzero_ps();
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const __m512 inverse = _mm512_set1_ps(most > kLeast ? 127.0f / most : 0.0f);
    // What is no number gets code 0, so that sums stay small; the scale tells.
    const __m512 first = _mm512_mul_ps(a, inverse), second = _mm512_mul_ps(b, inverse);
    const __m512i low = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(first, first, _CMP_ORD_Q), first),
                  high = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(second, second, _CMP_ORD_Q), second);
    _mm_storeu_si128((__m128i*)(codes + s * SP_STRETCH), _mm512_cvtsepi32_epi8(low));
    _mm_storeu_si128((__m128i*)(codes + s * SP_STRETCH + 16), _mm512_cvtsepi32_epi8(high));
    // A maximum may lose a NaN: it makes the whole stretch NaN, as the sampler expects of a broken model.
    scales[s] = _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) ? NAN : most / 127.0f;
    sums[s] = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
  }
}
