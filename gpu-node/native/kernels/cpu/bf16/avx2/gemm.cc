// Matrix product of packed weights on AVX2: lanes are rows, activations are broadcast fp32. A stretch of the
// activations of up to six tokens, widened where they are BF16, is met by all row blocks of the panel.
#include "kernels_avx2.h"
#include "lanes.h"

namespace {

constexpr int kTokens = SP_TILE_TOKENS;
constexpr int32_t kColumns = 512;  // of a stretch: six tokens and a block of it stay in the first cache
constexpr int64_t kAhead = 512;    // halves, of the weights
constexpr int64_t kFar = 4096;     // bytes, where one block is met at a time: nothing else hides the way to memory

constexpr int32_t kFew = 4;  // tiles; with more the panel is waited for so seldom that asking costs more

/// Where weights are asked for while others are met, and how many bytes further for each pair of columns.
struct Ahead {
  const char* at;
  int64_t step;
};

typedef float Sums[SP_LANES];  // of a block's rows and one token

/// Sixteen rows of a column.
struct Lanes {
  __m256 half[2];
};

/// sum += w * x[k + AT]. In one piece: GCC would give each token a pointer to move on and move sums between registers,
/// and where the core shares its decoders with another thread each instruction beside the products costs.
template <int AT>
SP_INLINE void add_column(__m256 (&sum)[2], const Lanes& w, const float* x, int64_t k) {
  __m256 a;
  __asm__ volatile(
      "vbroadcastss %c[at](%[x],%[k],4), %[a]\n\t"
      "vfmadd231ps %[a], %[w0], %[s0]\n\t"
      "vfmadd231ps %[a], %[w1], %[s1]"
      : [s0] "+x"(sum[0]), [s1] "+x"(sum[1]), [a] "=&x"(a)
      : [w0] "x"(w.half[0]), [w1] "x"(w.half[1]), [x] "r"(x), [k] "r"(k), [at] "i"(AT * 4),
        "m"(*(const float(*)[kColumns])x));
}

/// Columns of BF16 weights (pairs, 16, 2): even ones are the low halves of a lane, odd ones the high halves.
struct Halves {
  typedef uint16_t W;
  SP_INLINE Lanes even(const W* w) {
    const __m256i* pair = (const __m256i*)w;
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(pair), 16)),
             _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(pair + 1), 16))}};
  }
  SP_INLINE Lanes odd(const W* w) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
    const __m256i* pair = (const __m256i*)w;
    return {{_mm256_castsi256_ps(_mm256_and_si256(_mm256_load_si256(pair), high)),
             _mm256_castsi256_ps(_mm256_and_si256(_mm256_load_si256(pair + 1), high))}};
  }
  /// Columns k + AT and the one after it.
  template <int AT, int R, int T>
  SP_INLINE void pair(const W* w, int64_t stride, int64_t k, const float* const (&x)[T], Ahead& ahead,
                      __m256 (&sum)[R][T][2]) {
    if constexpr (R == 1) {
      _mm_prefetch(ahead.at, _MM_HINT_T1), ahead.at += ahead.step;
      w += (k + AT) * SP_LANES;
      const Lanes low = even(w);
      for (int t = 0; t < T; t++) add_column<AT>(sum[0][t], low, x[t], k);
      const Lanes high = odd(w);
      for (int t = 0; t < T; t++) add_column<AT + 1>(sum[0][t], high, x[t], k);
      return;
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const W* at = w + r * stride + (k + AT) * SP_LANES;
      // A single token would wait for more lines at once than the first level can: they go into the second.
      __builtin_prefetch(at + kAhead, 0, T == 1 ? 2 : 3);
      const Lanes low = even(at);
      for (int t = 0; t < T; t++) {
        const __m256 a = _mm256_broadcast_ss(x[t] + k + AT);
        for (int i = 0; i < 2; i++) add_product(sum[r][t][i], low.half[i], a);
      }
      const Lanes high = odd(at);
      for (int t = 0; t < T; t++) {
        const __m256 b = _mm256_broadcast_ss(x[t] + k + AT + 1);
        for (int i = 0; i < 2; i++) add_product(sum[r][t][i], high.half[i], b);
      }
    }
  }
  template <int R, int T>
  SP_INLINE void columns(const W* w, int64_t stride, int32_t count, const float* const (&x)[T], Ahead ahead,
                         __m256 (&sum)[R][T][2]) {
    int64_t k = 0;
    if constexpr (R == 1) {
      for (; k + 4 <= count; k += 4) {
        pair<0, R, T>(w, stride, k, x, ahead, sum);
        pair<2, R, T>(w, stride, k, x, ahead, sum);
      }
    }
    for (; k + 2 <= count; k += 2) pair<0, R, T>(w, stride, k, x, ahead, sum);
    if (k == count) return;  // an odd last column has no partner
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const Lanes low = even(w + r * stride + k * SP_LANES);
      for (int t = 0; t < T; t++) {
        const __m256 a = _mm256_broadcast_ss(x[t] + k);
        for (int i = 0; i < 2; i++) add_product(sum[r][t][i], low.half[i], a);
      }
    }
  }
};

/// Columns of fp32 weights (cols, 16).
struct Floats {
  typedef float W;
  template <int R, int T>
  SP_INLINE void columns(const W* w, int64_t stride, int32_t count, const float* const (&x)[T], Ahead,
                         __m256 (&sum)[R][T][2]) {
    for (int64_t k = 0; k < count; k++) {
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        const float* row = w + r * stride + k * SP_LANES;
        const __m256 rows[2] = {_mm256_load_ps(row), _mm256_load_ps(row + 8)};
        for (int t = 0; t < T; t++) {
          const __m256 a = _mm256_broadcast_ss(x[t] + k);
          for (int i = 0; i < 2; i++) add_product(sum[r][t][i], rows[i], a);
        }
      }
    }
  }
};

/// A stretch of the columns and where its sums come from and go to: zero at the first, `y` at the last.
struct Pass {
  int32_t count;
  bool first, last;
  int64_t ldy;
  int32_t step, rows;  // from a block of the panel to the next; left from the first of them on
  int64_t ahead;       // bytes from here to where weights are asked for
  int64_t ahead_step;
};

/// R blocks by T tokens go on over a stretch.
template <class K, int R, int T>
SP_INLINE void tile(const Pass& p, const typename K::W* w, int64_t stride, const float* const (&x)[T],
                    Sums (*sums)[kTokens], float* y, int32_t rows) {
  __m256 sum[R][T][2];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) {
      for (int i = 0; i < 2; i++) sum[r][t][i] = p.first ? _mm256_setzero_ps() : _mm256_load_ps(sums[r][t] + 8 * i);
    }
  }
  const Ahead ahead = {(const char*)w + p.ahead, p.ahead_step};
  K::template columns<R, T>(w, stride, p.count, x, ahead, sum);
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) {
      for (int i = 0; i < 2; i++) {
        if (p.last)
          store_left(y + t * p.ldy + r * p.step + 8 * i, rows - r * p.step - 8 * i, sum[r][t][i]);
        else
          _mm256_store_ps(sums[r][t] + 8 * i, sum[r][t][i]);
      }
    }
  }
}

/// As many blocks side by side as T tokens leave registers for.
template <class K, int T>
static void blocks(const Pass& p, int32_t left, const typename K::W* w, int64_t stride, const float* const* rows_of_x,
                   Sums (*sums)[kTokens], float* y) {
  constexpr int kBlocks = T == 1 ? 4 : T <= 3 ? 2 : 1;
  const float* x[T];
  for (int t = 0; t < T; t++) x[t] = rows_of_x[t];
  int32_t rows = p.rows;
  for (; left >= kBlocks; left -= kBlocks) {
    tile<K, kBlocks, T>(p, w, stride, x, sums, y, rows);
    w += kBlocks * stride, sums += kBlocks, y += kBlocks * p.step, rows -= kBlocks * p.step;
  }
  for (; left > 0; left--) {
    tile<K, 1, T>(p, w, stride, x, sums, y, rows);
    w += stride, sums++, y += p.step, rows -= p.step;
  }
}

template <class K, int T>
SP_INLINE void some_blocks(int32_t tokens, const Pass& p, int32_t count, const typename K::W* w, int64_t stride,
                           const float* const* x, Sums (*sums)[kTokens], float* y) {
  if (tokens == T) return blocks<K, T>(p, count, w, stride, x, sums, y);
  if constexpr (T > 1) some_blocks<K, T - 1>(tokens, p, count, w, stride, x, sums, y);
}

/// Columns from `from` on of a token as fp32: widened into `wide`, or where they are.
SP_INLINE const float* stretch(const uint16_t* row, int32_t from, int32_t count, float* wide) {
  row += from;
  int32_t k = 0;
  for (; k + 8 <= count; k += 8) _mm256_store_ps(wide + k, load_bf16(row + k));
  for (; k < count; k++) {
    const uint32_t bits = static_cast<uint32_t>(row[k]) << 16;
    wide[k] = __builtin_bit_cast(float, bits);
  }
  return wide;
}
SP_INLINE const float* stretch(const float* row, int32_t from, int32_t, float*) {
  return row + from;
}

/// Rows of activations: `at` of them, or one after the other.
template <class X>
struct Rows {
  const X* x;
  int64_t ld;
  const int32_t* at;
  const X* row(int32_t t) const { return x + (at ? at[t] : t) * ld; }
};

/// All tokens of a panel over `cols` columns, in tiles of nearly equal size.
template <class K, class X>
static void panel(const SpPacked* weights, const SpPanel* panel, int32_t cols, const Rows<X>& x, int32_t n, float* y,
                  int64_t ldy) {
  alignas(32) float wide[kTokens][kColumns];
  alignas(32) Sums sums[SP_PANEL_BLOCKS][kTokens];
  const typename K::W* w = (const typename K::W*)(weights->data + panel->begin * weights->block_bytes);
  const int64_t stride = panel->step * weights->block_bytes / static_cast<int64_t>(sizeof(*w));
  const int32_t tiles = (n + kTokens - 1) / kTokens;
  Pass pass = {0, false, false, ldy, panel->step * SP_LANES, panel->rows, kFar, 64};
  for (int32_t i = 0, done = 0; i < tiles; i++) {
    const int32_t some = (n - done + tiles - i - 1) / (tiles - i);
    for (int32_t from = 0; from < cols; from += kColumns) {
      pass.count = cols - from < kColumns ? cols - from : kColumns;
      pass.first = from == 0;
      pass.last = from + pass.count == cols;
      // All tiles but the first find the panel in the cache: each asks for its share of the panel that follows.
      if (tiles > 1 && tiles <= kFew && panel->next) {
        pass.ahead = panel->next + int64_t{pass.count} * 32 * i / tiles;
        pass.ahead_step = (64 + tiles - 1) / tiles;
      }
      const float* now[kTokens];
      for (int32_t t = 0; t < some; t++) now[t] = stretch(x.row(done + t), from, pass.count, wide[t]);
      some_blocks<K, kTokens>(some, pass, panel->count, w + from * SP_LANES, stride, now, sums, y + done * ldy);
    }
    done += some;
  }
}

}  // namespace

void sp_gemm_bf16_avx2(const SpPacked* w, const SpPanel* p, const SpInput* x, float* y, int64_t ldy) {
  const Rows<float> full = {x->full, x->ld_full, x->at};
  if (w->exact && w->dtype == SP_F32) return panel<Floats>(w, p, w->cols, full, x->n, y, ldy);
  if (!x->half) return panel<Halves>(w, p, w->cols, full, x->n, y, ldy);
  panel<Halves>(w, p, w->pairs * 2, Rows<uint16_t>{x->half, x->ld_half, nullptr}, x->n, y, ldy);
}
