// Products of quantised weights on AVX2. vpmaddubsw adds two products in 16 bits, which bytes by bytes would overflow,
// so one side is split: int8 activations into 16 * high + low of -8 .. 8, where 8 quads of columns times 2 products of
// at most 255 * 8 fit, int4 weights into their nibbles, at most 15 * 127. Otherwise as bf16/codes.cc.
#include <math.h>

#include "kernels_avx2.h"
#include "lanes.h"

namespace {

constexpr int kQuads = SP_STRETCH / 4;
constexpr float kLeast = 1e-36f;  // 127 divided by less is no number

/// A token's part of a stretch: its codes as the weights take them, its multiplier and what undoes the weights' offset
/// (8 times each).
struct Stretch {
  alignas(32) float scale[8];
  alignas(32) int32_t start[8];
  alignas(32) int8_t memory[2 * SP_STRETCH];
  const int8_t* parts;
};

/// int8: a line of 64 bytes is a quad of columns of 16 rows, which meets both parts of the activations.
struct Bytes {
  static constexpr int kParts = 2, kLines = kQuads, kOffsetBits = 7, kTokens = 3;
  /// Codes of a stretch as 32 low parts, then 32 high parts.
  SP_INLINE const int8_t* split(const int8_t* codes, int8_t* parts) {
    const Parts p = split_codes(_mm256_loadu_si256((const __m256i*)codes));
    _mm256_store_si256((__m256i*)parts, p.low);
    _mm256_store_si256((__m256i*)(parts + SP_STRETCH), p.high);
    return parts;
  }
  template <int T>
  SP_INLINE void line(const uint8_t* at, const Stretch (&x)[T], int line, __m256i (&sum)[T][kParts][2]) {
    const __m256i w[2] = {_mm256_loadu_si256((const __m256i*)at), _mm256_loadu_si256((const __m256i*)(at + 32))};
    for (int t = 0; t < T; t++) {
      add_quad(sum[t][0], w, x[t].parts + line * 4);
      add_quad(sum[t][1], w, x[t].parts + SP_STRETCH + line * 4);
    }
  }
  SP_INLINE __m256i whole(const __m256i (&sum)[kParts][2], int half) {
    return _mm256_add_epi32(_mm256_madd_epi16(sum[0][half], _mm256_set1_epi16(1)),
                            _mm256_madd_epi16(sum[1][half], _mm256_set1_epi16(16)));
  }
};

/// int4: two quads, the first in the low bits.
struct Nibbles {
  static constexpr int kParts = 1, kLines = kQuads / 2, kOffsetBits = 3, kTokens = 4;
  SP_INLINE const int8_t* split(const int8_t* codes, int8_t*) { return codes; }
  template <int T>
  SP_INLINE void line(const uint8_t* at, const Stretch (&x)[T], int line, __m256i (&sum)[T][kParts][2]) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i w[2] = {_mm256_loadu_si256((const __m256i*)at), _mm256_loadu_si256((const __m256i*)(at + 32))};
    const __m256i first[2] = {_mm256_and_si256(w[0], low), _mm256_and_si256(w[1], low)};
    for (int t = 0; t < T; t++) add_quad(sum[t][0], first, x[t].parts + line * 8);
    const __m256i second[2] = {_mm256_and_si256(_mm256_srli_epi16(w[0], 4), low),
                               _mm256_and_si256(_mm256_srli_epi16(w[1], 4), low)};
    for (int t = 0; t < T; t++) add_quad(sum[t][0], second, x[t].parts + line * 8 + 4);
  }
  SP_INLINE __m256i whole(const __m256i (&sum)[kParts][2], int half) {
    return _mm256_madd_epi16(sum[0][half], _mm256_set1_epi16(1));
  }
};

/// Blocks of a panel: bytes and rows from one to the next, rows left from the first on.
struct Part {
  const uint8_t* from;
  int64_t stride;
  int32_t step, rows;
  int64_t next;  // as SpPanel has it
};

/// Lines that R blocks will need: of themselves, behind their end of the panel that is likely to follow.
template <int kLines>
SP_INLINE void prefetch(const SpPacked* w, const Part& part, const uint8_t* at, int R) {
  constexpr int64_t kAhead = 512;
  const uint8_t* ahead = at + kAhead;
  if (ahead - part.from >= w->block_bytes && part.next) ahead += part.next - w->block_bytes;
  for (int r = 0; r < R; r++) {
    for (int i = 0; i < kLines; i++) __builtin_prefetch(ahead + r * part.stride + i * 64);
  }
}

/// A block by T tokens over one stretch: exact integer sums, then totals (T, 2, 8) in fp32.
template <class C, int T>
SP_INLINE void add_stretch(const uint8_t* lines, const uint16_t* scale, const Stretch (&x)[T], float* total) {
  __m256i sum[T][C::kParts][2];
  for (int t = 0; t < T; t++) {
    for (int i = 0; i < C::kParts; i++) sum[t][i][0] = sum[t][i][1] = _mm256_setzero_si256();
  }
#pragma GCC unroll 8
  for (int i = 0; i < C::kLines; i++) C::template line<T>(lines + i * 64, x, i, sum);
  for (int half = 0; half < 2; half++) {
    const __m256 by = load_bf16(scale + half * 8);
    for (int t = 0; t < T; t++) {
      const __m256i dot = _mm256_add_epi32(C::whole(sum[t], half), _mm256_load_si256((const __m256i*)x[t].start));
      float* to = total + (t * 2 + half) * 8;
      _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dot), by), _mm256_load_ps(x[t].scale),
                                          _mm256_load_ps(to)));
    }
  }
}

/// R blocks by T tokens over all stretches. A block is one stream of memory, its multipliers in it.
template <class C, int R, int T>
static void tile(const SpPacked* w, const Part& part, const SpCodes* x, int64_t token, float* y, int64_t ldy) {
  const int64_t stretches = x->ld / SP_STRETCH, per_scale = w->group / SP_STRETCH;
  alignas(32) float total[R][T * 2 * 8] = {};
  Stretch now[T];
  const uint8_t* at = part.from;
  const uint8_t* scale = nullptr;
  int64_t left = 0;  // stretches of the unit
  for (int64_t s = 0; s < stretches; s++, left--, at += C::kLines * 64) {
    if (left == 0) {
      if (T == 1) prefetch<1>(w, part, at, R);
      scale = at, at += 64, left = 2 * per_scale;
    } else if (left == per_scale) {
      scale += SP_LANES * sizeof(uint16_t);
    }
    if (T == 1) prefetch<C::kLines>(w, part, at, R);
    for (int t = 0; t < T; t++) {
      const int64_t from = (token + t) * stretches + s;
      now[t].parts = C::split(x->codes + from * SP_STRETCH, now[t].memory);
      _mm256_store_ps(now[t].scale, _mm256_set1_ps(x->scales[from]));
      _mm256_store_si256((__m256i*)now[t].start, _mm256_set1_epi32(-(x->sums[from] << C::kOffsetBits)));
    }
    for (int r = 0; r < R; r++)
      add_stretch<C, T>(at + r * part.stride, (const uint16_t*)(scale + r * part.stride), now, total[r]);
  }
  for (int r = 0; r < R; r++) {
    const int32_t rows = part.rows - r * part.step;
    for (int t = 0; t < T; t++) {
      for (int half = 0; half < 2; half++)
        store_left(y + (token + t) * ldy + r * part.step + half * 8, rows - half * 8,
                   _mm256_load_ps(total[r] + (t * 2 + half) * 8));
    }
  }
}

template <class C, int R>
static void panel(const SpPacked* w, const Part& part, const SpCodes* x, float* y, int64_t ldy) {
  int64_t token = 0;
  for (int64_t tiles = (x->n + C::kTokens - 1) / C::kTokens; tiles > 0; tiles--) {
    const int64_t count = (x->n - token + tiles - 1) / tiles;
    if (count == C::kTokens)
      tile<C, R, C::kTokens>(w, part, x, token, y, ldy);
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
  const Part part = {w->data + p.begin * w->block_bytes, p.step * w->block_bytes, p.step * SP_LANES, p.rows, p.next};
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
