// Matrix product of packed weights: lanes are rows, activations are broadcast pairs (vdpbf16ps). FP8 is widened to
// BF16, which is exact, one 128-column group at a time; its scale multiplies the group's sum. `exact` weights meet fp32
// activations.
#include <immintrin.h>

#include "kernels.h"

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

constexpr int kTokens = 6, kPanel = SP_PANEL_BLOCKS, kSpanPairs = 64;
typedef int32_t Pair __attribute__((may_alias, aligned(2)));

SP_INLINE __mmask16 lanes(int32_t rows) {
  return rows >= SP_LANES ? 0xFFFF : static_cast<__mmask16>((1u << rows) - 1);
}

struct Out {
  float* y;
  int64_t ldy;
  int32_t rows;          // of the whole panel
  const uint8_t* scale;  // (16) of each block, scale_step bytes apart, or null: y = sum; else y += scale * sum
  int64_t scale_step;
  bool half_scale;  // multipliers are BF16
  bool first;       // y holds nothing yet
};

SP_INLINE __m512 load_scale(const Out& out, int r) {
  const uint8_t* from = out.scale + r * out.scale_step;
  if (!out.half_scale) return _mm512_loadu_ps(from);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16));
}

/// Where group `g` of the blocks at `from` adds its sums.
SP_INLINE Out group_out(const SpPacked* w, const uint8_t* from, int64_t g, int32_t rows, float* y, int64_t ldy) {
  const bool half = w->dtype != SP_F8_E4M3;
  return {y, ldy, rows, from + w->scales_at + g * SP_LANES * (half ? 2 : 4), w->block_bytes, half, g == 0};
}

template <int R, int T>
SP_INLINE void put(const Out& out, __m512 (&sum)[R][T]) {
  for (int r = 0; r < R; r++) {
    const __mmask16 mask = lanes(out.rows - r * SP_LANES);
    const __m512 scale = out.scale ? load_scale(out, r) : _mm512_setzero_ps();
    for (int t = 0; t < T; t++) {
      float* y = out.y + t * out.ldy + r * SP_LANES;
      if (out.scale) {
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

/// BF16 of the 128 magnitudes of a byte code (bit 7 is the sign), split in low and high bytes.
struct Magnitudes {
  alignas(64) uint8_t low[128], high[128];
};

constexpr uint16_t int8_bits(int m) {  // m as BF16: exact, seven significant bits
  if (m == 0) return 0;
  int exponent = 0;
  while (m >> (exponent + 1)) exponent++;
  return static_cast<uint16_t>(((127 + exponent) << 7) | ((m << (7 - exponent)) & 0x7F));
}
constexpr uint16_t e4m3_bits(int m) {  // subnormal codes are m * 2^-9
  return m < 8 ? static_cast<uint16_t>(m ? int8_bits(m) - (9 << 7) : 0) : static_cast<uint16_t>((m << 4) + (120 << 7));
}
constexpr Magnitudes magnitudes(uint16_t (*bits)(int)) {
  Magnitudes out = {};
  for (int m = 0; m < 128; m++) out.low[m] = bits(m) & 0xFF, out.high[m] = bits(m) >> 8;
  return out;
}
constexpr Magnitudes kInt8 = magnitudes(int8_bits), kE4m3 = magnitudes(e4m3_bits);

/// -8 .. 7 as BF16, twice: a word's bits above the nibble are then of no matter to vpermw.
alignas(64) const uint16_t kNibbles[32] = {0xC100, 0xC0E0, 0xC0C0, 0xC0A0, 0xC080, 0xC040, 0xC000, 0xBF80,
                                           0x0000, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, 0x40E0,
                                           0xC100, 0xC0E0, 0xC0C0, 0xC0A0, 0xC080, 0xC040, 0xC000, 0xBF80,
                                           0x0000, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, 0x40E0};

/// Byte codes: 64 bytes are two pairs. vpermi2b looks up both bytes of all 64; the packed order (products.cc) is such
/// that unpacking within 128 bits gives them back in row order.
struct Bytes {
  static constexpr int kPairs = 2;
  __m512i low0, low1, high0, high1;
  explicit Bytes(const Magnitudes& m)
      : low0(_mm512_load_si512(m.low)),
        low1(_mm512_load_si512(m.low + 64)),
        high0(_mm512_load_si512(m.high)),
        high1(_mm512_load_si512(m.high + 64)) {}
  inline __attribute__((always_inline)) void widen(const uint8_t* from, __m512i (&to)[kPairs]) const {
    const __m512i codes = _mm512_loadu_si512(from);
    const __m512i low = _mm512_permutex2var_epi8(low0, codes, low1),
                  high = _mm512_permutex2var_epi8(high0, codes, high1);
    // high | (codes & 0x80)
    const __m512i sign = _mm512_ternarylogic_epi64(high, codes, _mm512_set1_epi8(static_cast<char>(0x80)), 0xF8);
    to[0] = _mm512_unpacklo_epi8(low, sign);
    to[1] = _mm512_unpackhi_epi8(low, sign);
  }
};

/// int4: 64 bytes are four pairs, one nibble of each word a pair.
struct Nibbles {
  static constexpr int kPairs = 4;
  __m512i table;
  Nibbles() : table(_mm512_load_si512(kNibbles)) {}
  inline __attribute__((always_inline)) void widen(const uint8_t* from, __m512i (&to)[kPairs]) const {
    const __m512i words = _mm512_loadu_si512(from);
    to[0] = _mm512_permutexvar_epi16(words, table);
    to[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), table);
    to[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 8), table);
    to[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 12), table);
  }
};

/// Halves from one widened block to the next: not a power of two, or blocks would share cache sets.
constexpr int64_t kWideStride = kSpanPairs * 32 + 64;

template <class C>
SP_INLINE void widen_block(const C& codes, const uint8_t* from, int32_t pairs, uint16_t* to) {
  for (int32_t k = 0; k < pairs; k += C::kPairs) {
    __m512i wide[C::kPairs];
    codes.widen(from + k / C::kPairs * 64, wide);
    for (int i = 0; i < C::kPairs; i++) _mm512_store_si512(to + (k + i) * 32, wide[i]);
  }
}

/// One chunk of C::kPairs pairs of every block, the first `valid` of them real: x ends there.
template <class C, int R, int T>
SP_INLINE void add_chunk(const C& codes, const uint8_t* w, int64_t stride, int32_t valid, const uint16_t* x,
                         int64_t ldx, __m512 (&sum)[R][T]) {
  for (int r = 0; r < R; r++) {
    __m512i wide[C::kPairs];
    codes.widen(w + r * stride, wide);
    for (int i = 0; i < C::kPairs; i++) {
      if (i >= valid) break;
      for (int t = 0; t < T; t++) {
        const __m512bh pair = (__m512bh)_mm512_set1_epi32(*(const Pair*)(x + t * ldx + 2 * i));
        sum[r][t] = _mm512_dpbf16_ps(sum[r][t], (__m512bh)wide[i], pair);
      }
    }
  }
}

/// Few tokens: codes are widened in registers. The same order of additions as through memory.
template <class C, int R, int T>
SP_INLINE void tile_codes(const C& codes, const uint8_t* w, int64_t stride, int32_t pairs, const uint16_t* x,
                          int64_t ldx, const Out& out) {
  __m512 sum[R][T];
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) sum[r][t] = _mm512_setzero_ps();
  }
  int32_t k = 0;
  for (; k + C::kPairs <= pairs; k += C::kPairs)
    add_chunk<C, R, T>(codes, w + k / C::kPairs * 64, stride, C::kPairs, x + 2 * k, ldx, sum);
  if (k < pairs) add_chunk<C, R, T>(codes, w + k / C::kPairs * 64, stride, pairs - k, x + 2 * k, ldx, sum);
  put<R, T>(out, sum);
}

/// Tokens up to which widening in registers is faster than through memory.
constexpr int32_t kFewTokens = 2;

template <class C, int R>
static void few_tokens(const C& codes, const SpPacked* w, const uint8_t* from, int32_t rows, const SpInput* x, float* y,
                       int64_t ldy) {
  for (int32_t column = 0; column < w->cols; column += w->group) {
    const int32_t left = w->cols - column, pairs = (left < w->group ? left + 1 : w->group) / 2;
    const Out out = group_out(w, from, column / w->group, rows, y, ldy);
    const uint8_t* at = from + column / 2 / C::kPairs * 64;
    if (x->n == 1)
      tile_codes<C, R, 1>(codes, at, w->block_bytes, pairs, x->half + column, x->ld_half, out);
    else
      tile_codes<C, R, 2>(codes, at, w->block_bytes, pairs, x->half + column, x->ld_half, out);
  }
}

/// Columns [column, column + cols) of widened blocks, one multiplier's worth.
static void gemm_group(const SpPacked* w, int32_t count, const uint16_t* wide, int64_t column, int32_t cols,
                       const SpInput* x, const Out& out) {
  if (w->exact)
    panels<Exact>(count, wide, kWideStride, cols, x->full + column, x->ld_full, x->n, out);
  else
    panels<Half>(count, wide, kWideStride, (cols + 1) / 2, x->half + column, x->ld_half, x->n, out);
}

template <class C>
static void gemm_codes(const C& codes, const SpPacked* w, int32_t begin, int32_t count, int32_t rows, const SpInput* x,
                       float* y, int64_t ldy) {
  const uint8_t* from = w->data + begin * w->block_bytes;
  if (x->n <= kFewTokens && !w->exact) {
    if (count == 4) return few_tokens<C, 4>(codes, w, from, rows, x, y, ldy);
    if (count == 3) return few_tokens<C, 3>(codes, w, from, rows, x, y, ldy);
    if (count == 2) return few_tokens<C, 2>(codes, w, from, rows, x, y, ldy);
    return few_tokens<C, 1>(codes, w, from, rows, x, y, ldy);
  }
  alignas(64) uint16_t wide[kPanel * kWideStride];
  const int32_t span = w->group < 2 * kSpanPairs ? 2 * kSpanPairs / w->group * w->group : 2 * kSpanPairs;
  for (int32_t column = 0; column < w->cols; column += span) {
    const int32_t pairs = w->pairs - column / 2 < span / 2 ? w->pairs - column / 2 : span / 2;
    for (int32_t r = 0; r < count; r++)
      widen_block(codes, from + r * w->block_bytes + column / 2 / C::kPairs * 64, pairs, wide + r * kWideStride);
    for (int32_t at = 0; at < span && column + at < w->cols; at += w->group) {
      const int32_t left = w->cols - column - at, cols = left < w->group ? left : w->group;
      const Out out = group_out(w, from, (column + at) / w->group, rows, y, ldy);
      gemm_group(w, count, wide + at / 2 * 32, column + at, cols, x, out);
    }
  }
}

}  // namespace

void sp_gemm_bf16(const SpPacked* w, int32_t begin, int32_t count, int32_t rows, const SpInput* x, float* y,
                  int64_t ldy) {
  const uint8_t* from = w->data + begin * w->block_bytes;
  const Out out = {y, ldy, rows, nullptr, 0, false, true};
  if (w->dtype == SP_I4) return gemm_codes(Nibbles(), w, begin, count, rows, x, y, ldy);
  if (w->dtype == SP_I8) return gemm_codes(Bytes(kInt8), w, begin, count, rows, x, y, ldy);
  if (w->dtype == SP_F8_E4M3) return gemm_codes(Bytes(kE4m3), w, begin, count, rows, x, y, ldy);
  if (w->exact && w->dtype == SP_F32)
    return panels<Float>(count, (const float*)from, w->block_bytes / 4, w->cols, x->full, x->ld_full, x->n, out);
  if (w->exact)
    return panels<Exact>(count, (const uint16_t*)from, w->block_bytes / 2, w->cols, x->full, x->ld_full, x->n, out);
  panels<Half>(count, (const uint16_t*)from, w->block_bytes / 2, w->pairs, x->half, x->ld_half, x->n, out);
}
