// Absorbed attention of one query over one chunk of keys, on AVX2. Scores: lanes are heads, rows of a few keys are
// widened to fp32 and broadcast. Weighted sum: lanes are latent dimensions, sixteen of all keys widened at a time.
#include <math.h>

#include "kernels_avx2.h"
#include "lanes.h"

namespace {

constexpr int32_t kDims = 256;  // of the rows that are widened together
constexpr int kLine = 32;       // halves
constexpr int kAhead = 12;      // keys: chosen rows lie apart, and memory takes longer than a few keys' work

/// Each sum += its factor * *x. In one piece: where the core shares its decoders with another thread each instruction
/// beside the products costs, and GCC would move sums from register to register.
SP_INLINE void add_products(__m256 (&sum)[2], const __m256 (&factor)[2], const float* x) {
  __m256 wide;
  __asm__ volatile(
      "vbroadcastss %[x], %[wide]\n\t"
      "vfmadd231ps %[wide], %[f0], %[s0]\n\t"
      "vfmadd231ps %[wide], %[f1], %[s1]"
      : [s0] "+x"(sum[0]), [s1] "+x"(sum[1]), [wide] "=&x"(wide)
      : [f0] "x"(factor[0]), [f1] "x"(factor[1]), [x] "m"(*x));
}
SP_INLINE void add_products(__m256 (&sum)[1], const __m256 (&factor)[1], const float* x) {
  add_product(sum[0], factor[0], _mm256_broadcast_ss(x));
}

/// scores (N, 16) of N keys for 8 * V heads. The rows `kAhead` keys further on are asked for meanwhile, a line of each
/// at a time: asked for at once, more lines than the processor keeps track of, they would be waited for.
template <int V, int N>
SP_INLINE void score_keys(const float* query, int64_t halves, const uint16_t* const* rows, float* scores) {
  alignas(32) float wide[N][kDims];
  __m256 sum[N][V];
  // Left to itself GCC keeps the sums of many keys in memory.
#pragma GCC unroll 12
  for (int i = 0; i < N; i++) {
    for (int v = 0; v < V; v++) sum[i][v] = _mm256_setzero_ps();
  }
  for (int64_t from = 0; from < halves; from += kDims) {
    const int64_t here = halves - from < kDims ? halves - from : kDims;
    for (int i = 0; i < N; i++) {
#pragma GCC unroll 4
      for (int64_t d = 0; d < here; d += 8) _mm256_store_ps(wide[i] + d, load_bf16(rows[i] + from + d));
    }
    for (int64_t line = 0; line < here; line += kLine) {
      for (int i = 0; i < N; i++) __builtin_prefetch(rows[i + kAhead] + from + line);
#pragma GCC unroll 4
      for (int64_t d = line; d < line + kLine; d++) {
        __m256 q[V];
        for (int v = 0; v < V; v++) q[v] = _mm256_load_ps(query + (from + d) * SP_LANES + v * 8);
#pragma GCC unroll 12
        for (int i = 0; i < N; i++) add_products(sum[i], q, wide[i] + d);
      }
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < N; i++) {
    for (int v = 0; v < V; v++) _mm256_store_ps(scores + i * SP_LANES + v * 8, sum[i][v]);
  }
}

/// The next `some` keys, up to N.
template <int V, int N>
SP_INLINE void score_some(int32_t some, const float* query, int64_t halves, const uint16_t* const* rows,
                          float* scores) {
  if (some == N) return score_keys<V, N>(query, halves, rows, scores);
  if constexpr (N > 1) score_some<V, N - 1>(some, query, halves, rows, scores);
}

/// In parts of nearly equal size: few keys at once leave the multipliers waiting for their own sums. `kAhead` more rows
/// than `count` may be asked for.
template <int V>
static void score_rows(const float* query, int64_t halves, const uint16_t* const* rows, int32_t count, float* scores) {
  constexpr int kKeys = V == 2 ? 6 : 12;
  for (int32_t i = 0; i < kAhead; i++) {
    for (int64_t d = 0; d < halves; d += kLine) __builtin_prefetch(rows[i] + d);
  }
  int32_t i = 0;
  for (int32_t parts = (count + kKeys - 1) / kKeys; parts > 0; parts--) {
    const int32_t some = (count - i + parts - 1) / parts;
    score_some<V, kKeys>(some, query, halves, rows + i, scores + i * SP_LANES);
    i += some;
  }
}

/// scores (count, 16) become weights in place; tops and totals per head. Eight heads from `at`.
static void softmax(const SpChunk* c, int at, float* scores, SpSoftmax* out) {
  const __m256 scale = _mm256_set1_ps(c->scale);
  __m256 top = _mm256_set1_ps(-INFINITY), total = _mm256_setzero_ps();
  for (int32_t i = 0; i < c->keys.count; i++) {
    const __m256 s = _mm256_mul_ps(_mm256_load_ps(scores + i * SP_LANES + at), scale);
    _mm256_store_ps(scores + i * SP_LANES + at, s);
    top = _mm256_max_ps(top, s);
  }
  for (int32_t i = 0; i < c->keys.count; i++) {
    const __m256 e = exp_lanes(_mm256_sub_ps(_mm256_load_ps(scores + i * SP_LANES + at), top));
    total = _mm256_add_ps(total, e);
    _mm256_store_ps(scores + i * SP_LANES + at, e);
  }
  _mm256_storeu_ps(out->top + at, top);
  _mm256_storeu_ps(out->total + at, total);
}

/// z of H heads, `left` columns of sixteen: the sum over keys of weight * value; values (count, 16).
template <int H>
SP_INLINE void weigh(const float* values, int32_t count, const float* weights, int64_t left, int32_t latent, float* z) {
  __m256 sum[H][2];
  for (int h = 0; h < H; h++) sum[h][0] = sum[h][1] = _mm256_setzero_ps();
#pragma GCC unroll 4
  for (int32_t i = 0; i < count; i++) {
    const __m256 value[2] = {_mm256_load_ps(values + i * 16), _mm256_load_ps(values + i * 16 + 8)};
    for (int h = 0; h < H; h++) add_products(sum[h], value, weights + i * SP_LANES + h);
  }
  for (int h = 0; h < H; h++) {
    store_left(z + int64_t{h} * latent, left, sum[h][0]);
    store_left(z + int64_t{h} * latent + 8, left - 8, sum[h][1]);
  }
}

static void weigh_rows(const uint16_t* const* rows, const SpChunk* c, const float* weights, int32_t latent, float* z) {
  alignas(32) float values[SP_CHUNK_KEYS * 16];
  for (int64_t d = 0; d < latent; d += 16) {
#pragma GCC unroll 4
    for (int32_t i = 0; i < c->keys.count; i++) {
      _mm256_store_ps(values + i * 16, load_bf16(rows[i] + d));
      _mm256_store_ps(values + i * 16 + 8, load_bf16(rows[i] + d + 8));
    }
    const float* w = weights;
    float* to = z + d;
    int32_t left = c->heads;
    const auto step = [&](int32_t heads) { left -= heads, w += heads, to += int64_t{heads} * latent; };
    for (; left >= 6 && left != 8; step(6)) weigh<6>(values, c->keys.count, w, latent - d, latent, to);
    for (; left >= 4; step(4)) weigh<4>(values, c->keys.count, w, latent - d, latent, to);
    for (; left >= 1; step(1)) weigh<1>(values, c->keys.count, w, latent - d, latent, to);
  }
}

/// y = a * y + b * x.
SP_INLINE void blend(const float* x, float b, float a, int64_t count, float* y) {
  const __m256 keep = _mm256_set1_ps(a), add = _mm256_set1_ps(b);
  for (int64_t i = 0; i < count; i += 8) {
    const __m256 old = _mm256_mul_ps(load_left(y + i, count - i), keep);
    store_left(y + i, count - i, _mm256_fmadd_ps(load_left(x + i, count - i), add, old));
  }
}

/// Rows to columns, in place.
SP_INLINE void transpose(__m256 (&v)[8]) {
  __m256 pairs[8], quads[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; j++) {
      quads[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
      quads[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xEE);
    }
  }
  for (int i = 0; i < 4; i++) {
    v[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

/// Up to eight heads (heads, dims) become lanes of to (dims, 16); lanes of no head are zero.
static void heads_to_lanes(const float* heads, int64_t dims, int32_t count, float* to) {
  for (int64_t d = 0; d < dims; d += 8) {
    __m256 lanes[8];
    for (int h = 0; h < 8; h++) lanes[h] = h < count ? load_left(heads + h * dims + d, dims - d) : _mm256_setzero_ps();
    transpose(lanes);
    for (int64_t i = 0; i < 8 && d + i < dims; i++) _mm256_storeu_ps(to + (d + i) * SP_LANES, lanes[i]);
  }
}

/// The chunk's rows as BF16, FP8 ones widened into `wide`, then `kAhead` more: what may be asked for beyond the last
/// key.
static void find_rows(const SpChunk* c, const SpKvView* kv, uint16_t* wide, const uint16_t** rows) {
  const SpLayout* l = &kv->layout;
  for (int32_t i = 0; i < c->keys.count; i++) rows[i] = (const uint16_t*)sp_key_row(kv, c->keys, i);
  for (int i = 0; i < kAhead; i++)
    rows[c->keys.count + i] = c->keys.count > 0 ? rows[c->keys.count - 1] : (const uint16_t*)kv->base;
  if (!l->fp8) return;
  for (int32_t i = 0; i < c->keys.count; i++) {
    uint16_t* to = wide + i * (l->row_halves + 32);
    if (!c->again) {
      for (int64_t at = 0; at < l->row_bytes; at += 64) __builtin_prefetch((const uint8_t*)rows[i + kAhead] + at);
      sp_load_fp8_row_avx2(l, (const uint8_t*)rows[i], to);
    }
    rows[i] = to;
  }
}

}  // namespace

void sp_pack_query_avx2(const SpLayout* layout, const float* q_latent, const float* q_rope, int32_t heads,
                        uint16_t* query) {
  float* to = (float*)query;
  const int64_t latent = layout->latent, rope = layout->rope;
  for (int32_t h = 0; h < SP_LANES; h += 8) {
    const int32_t some = heads - h < 8 ? heads - h : 8;
    heads_to_lanes(q_latent + h * latent, latent, some, to + h);
    heads_to_lanes(q_rope + h * rope, rope, some, to + latent * SP_LANES + h);
    for (int64_t d = latent + rope; d < layout->row_halves; d++)
      _mm256_storeu_ps(to + d * SP_LANES + h, _mm256_setzero_ps());
  }
}

void sp_attend_chunk_avx2(const SpChunk* c, const SpKvView* kv, uint16_t* wide, SpSoftmax* out) {
  alignas(32) float scores[SP_CHUNK_KEYS * SP_LANES];
  const uint16_t* rows[SP_CHUNK_KEYS + kAhead];
  find_rows(c, kv, wide, rows);
  const SpLayout* l = &kv->layout;
  const float* query = (const float*)c->query;
  for (int i = 8; i < SP_LANES; i++) out->top[i] = out->total[i] = 0;
  if (c->heads > 8) {
    score_rows<2>(query, l->row_halves, rows, c->keys.count, scores);
    softmax(c, 8, scores, out);
  } else {
    score_rows<1>(query, l->row_halves, rows, c->keys.count, scores);
  }
  softmax(c, 0, scores, out);
  weigh_rows(rows, c, scores, l->latent, out->z);
}

void sp_attend_merge_avx2(const SpSoftmax* next, int32_t heads, int32_t latent, SpSoftmax* into) {
  float keep[SP_LANES], add[SP_LANES];
  for (int at = 0; at < SP_LANES; at += 8) {
    const __m256 old_top = _mm256_loadu_ps(into->top + at), new_top = _mm256_loadu_ps(next->top + at);
    const __m256 top = _mm256_max_ps(old_top, new_top);
    _mm256_storeu_ps(keep + at, exp_lanes(_mm256_sub_ps(old_top, top)));
    _mm256_storeu_ps(add + at, exp_lanes(_mm256_sub_ps(new_top, top)));
    _mm256_storeu_ps(into->top + at, top);
  }
  for (int at = 0; at < SP_LANES; at += 8) {
    const __m256 old = _mm256_mul_ps(_mm256_loadu_ps(into->total + at), _mm256_loadu_ps(keep + at));
    const __m256 both = _mm256_fmadd_ps(_mm256_loadu_ps(next->total + at), _mm256_loadu_ps(add + at), old);
    _mm256_storeu_ps(into->total + at, both);
  }
  for (int64_t h = 0; h < heads; h++) blend(next->z + h * latent, add[h], keep[h], latent, into->z + h * latent);
}

void sp_attend_finish_avx2(const SpSoftmax* state, int32_t heads, int32_t latent, float* z) {
  for (int64_t h = 0; h < heads; h++) {
    const __m256 scale = _mm256_set1_ps(1.0f / state->total[h]);
    for (int64_t i = 0; i < latent; i += 8)
      store_left(z + h * latent + i, latent - i,
                 _mm256_mul_ps(load_left(state->z + h * latent + i, latent - i), scale));
  }
}
