// Matrix product of packed weights on AVX2: lanes are rows, activations are broadcast fp32. A stretch of the
// activations of up to six tokens, widened where they are BF16, is met by all row blocks of the panel.
#include "kernels_avx2.h"
#include "lanes.h"

namespace {

constexpr int kTokens = SP_TILE_TOKENS;
constexpr int32_t kColumns = 512;  // of a stretch: six tokens and a block of it stay in the first cache
constexpr int64_t kAhead = 512;    // halves, of the weights

typedef float Sums[SP_LANES];  // of a block's rows and one token

/// Columns of BF16 weights (pairs, 16, 2): even ones are the low halves of a lane, odd ones the high halves.
struct Halves {
  typedef uint16_t W;
  template <int R, int T>
  SP_INLINE void columns(const W* w, int64_t stride, int32_t count, const float* x, int64_t ldx,
                         __m256 (&sum)[R][T][2]) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
    for (int64_t k = 0; k < count; k += 2) {
      const bool whole = k + 1 < count;  // an odd last column has no partner
      for (int r = 0; r < R; r++) {
        const __m256i* pair = (const __m256i*)(w + r * stride + k * SP_LANES);
        __builtin_prefetch(w + r * stride + k * SP_LANES + kAhead);
        const __m256 even[2] = {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(pair), 16)),
                                _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(pair + 1), 16))};
        for (int t = 0; t < T; t++) {
          const __m256 a = _mm256_broadcast_ss(x + t * ldx + k);
          for (int i = 0; i < 2; i++) add_product(sum[r][t][i], even[i], a);
        }
        if (!whole) continue;
        const __m256 odd[2] = {_mm256_castsi256_ps(_mm256_and_si256(_mm256_load_si256(pair), high)),
                               _mm256_castsi256_ps(_mm256_and_si256(_mm256_load_si256(pair + 1), high))};
        for (int t = 0; t < T; t++) {
          const __m256 b = _mm256_broadcast_ss(x + t * ldx + k + 1);
          for (int i = 0; i < 2; i++) add_product(sum[r][t][i], odd[i], b);
        }
      }
    }
  }
};

/// Columns of fp32 weights (cols, 16).
struct Floats {
  typedef float W;
  template <int R, int T>
  SP_INLINE void columns(const W* w, int64_t stride, int32_t count, const float* x, int64_t ldx,
                         __m256 (&sum)[R][T][2]) {
    for (int64_t k = 0; k < count; k++) {
      for (int r = 0; r < R; r++) {
        const float* row = w + r * stride + k * SP_LANES;
        const __m256 rows[2] = {_mm256_load_ps(row), _mm256_load_ps(row + 8)};
        for (int t = 0; t < T; t++) {
          const __m256 a = _mm256_broadcast_ss(x + t * ldx + k);
          for (int i = 0; i < 2; i++) add_product(sum[r][t][i], rows[i], a);
        }
      }
    }
  }
};

/// R blocks by T tokens go on over `count` columns.
template <class K, int R, int T>
SP_INLINE void tile(const typename K::W* w, int64_t stride, int32_t count, const float* x, int64_t ldx,
                    Sums (*sums)[kTokens]) {
  __m256 sum[R][T][2];
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) {
      for (int i = 0; i < 2; i++) sum[r][t][i] = _mm256_load_ps(sums[r][t] + 8 * i);
    }
  }
  K::template columns<R, T>(w, stride, count, x, ldx, sum);
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) {
      for (int i = 0; i < 2; i++) _mm256_store_ps(sums[r][t] + 8 * i, sum[r][t][i]);
    }
  }
}

/// As many blocks side by side as T tokens leave registers for.
template <class K, int T>
static void blocks(int32_t left, const typename K::W* w, int64_t stride, int32_t count, const float* x, int64_t ldx,
                   Sums (*sums)[kTokens]) {
  constexpr int kBlocks = T == 1 ? 4 : T <= 3 ? 2 : 1;
  for (; left >= kBlocks; left -= kBlocks, w += kBlocks * stride, sums += kBlocks)
    tile<K, kBlocks, T>(w, stride, count, x, ldx, sums);
  for (; left > 0; left--, w += stride, sums++) tile<K, 1, T>(w, stride, count, x, ldx, sums);
}

struct Stretch {
  const float* x;
  int64_t ldx;
};

/// Columns [from, from + count) of T tokens as fp32.
SP_INLINE Stretch stretch(const uint16_t* half, int64_t ldx, int32_t tokens, int32_t from, int32_t count, float* wide) {
  for (int32_t t = 0; t < tokens; t++) {
    const uint16_t* row = half + t * ldx + from;
    int32_t k = 0;
    for (; k + 8 <= count; k += 8) _mm256_store_ps(wide + t * kColumns + k, load_bf16(row + k));
    for (; k < count; k++) {
      const uint32_t bits = static_cast<uint32_t>(row[k]) << 16;
      wide[t * kColumns + k] = __builtin_bit_cast(float, bits);
    }
  }
  return {wide, kColumns};
}
SP_INLINE Stretch stretch(const float* full, int64_t ldx, int32_t, int32_t from, int32_t, float*) {
  return {full + from, ldx};
}

struct Out {
  float* y;
  int64_t ldy;
  int32_t step;  // rows from a block of the panel to the next
  int32_t rows;  // left from the first block on
};

/// All tokens of a panel over `cols` columns, in tiles of nearly equal size.
template <class K, class X>
static void panel(int32_t count, const typename K::W* w, int64_t stride, int32_t cols, const X* x, int64_t ldx,
                  int32_t n, Out out) {
  alignas(32) float wide[kTokens * kColumns];
  alignas(32) Sums sums[SP_PANEL_BLOCKS][kTokens];
  for (int32_t tiles = (n + kTokens - 1) / kTokens; tiles > 0; tiles--) {
    const int32_t some = (n + tiles - 1) / tiles;
    for (int32_t r = 0; r < count; r++) {
      for (int32_t t = 0; t < some; t++) {
        for (int i = 0; i < SP_LANES; i++) sums[r][t][i] = 0;
      }
    }
    for (int32_t from = 0; from < cols; from += kColumns) {
      const int32_t here = cols - from < kColumns ? cols - from : kColumns;
      const Stretch now = stretch(x, ldx, some, from, here, wide);
      const typename K::W* at = w + from * SP_LANES;
      switch (some) {
        case 6:
          blocks<K, 6>(count, at, stride, here, now.x, now.ldx, sums);
          break;
        case 5:
          blocks<K, 5>(count, at, stride, here, now.x, now.ldx, sums);
          break;
        case 4:
          blocks<K, 4>(count, at, stride, here, now.x, now.ldx, sums);
          break;
        case 3:
          blocks<K, 3>(count, at, stride, here, now.x, now.ldx, sums);
          break;
        case 2:
          blocks<K, 2>(count, at, stride, here, now.x, now.ldx, sums);
          break;
        default:
          blocks<K, 1>(count, at, stride, here, now.x, now.ldx, sums);
      }
    }
    for (int32_t r = 0; r < count; r++) {
      const int32_t rows = out.rows - r * out.step;
      for (int32_t t = 0; t < some; t++) {
        float* y = out.y + t * out.ldy + r * out.step;
        for (int i = 0; i < 2; i++) store_left(y + 8 * i, rows - 8 * i, _mm256_load_ps(sums[r][t] + 8 * i));
      }
    }
    n -= some;
    x += some * ldx;
    out.y += some * out.ldy;
  }
}

}  // namespace

void sp_gemm_bf16_avx2(const SpPacked* w, const SpPanel* p, const SpInput* x, float* y, int64_t ldy) {
  const uint8_t* from = w->data + p->begin * w->block_bytes;
  const int64_t stride = p->step * w->block_bytes;
  const Out out = {y, ldy, p->step * SP_LANES, p->rows};
  if (w->exact && w->dtype == SP_F32)
    return panel<Floats>(p->count, (const float*)from, stride / 4, w->cols, x->full, x->ld_full, x->n, out);
  if (!x->half)
    return panel<Halves>(p->count, (const uint16_t*)from, stride / 2, w->cols, x->full, x->ld_full, x->n, out);
  panel<Halves>(p->count, (const uint16_t*)from, stride / 2, w->pairs * 2, x->half, x->ld_half, x->n, out);
}
