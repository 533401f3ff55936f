// Index scores with int8 keys and queries (vpdpbusd): lanes are keys, a query's bytes are broadcast four at a time.
//   I[s] = key_scale[s] * sum_j w[j] q_scale[j] relu(q[j] . k[s]);  integer dot products, fp32 sums in head order.
#include <immintrin.h>
#include <math.h>

#include "kernels.h"

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

typedef int32_t Quad __attribute__((may_alias, aligned(1)));

/// Codes of x / scale in -127 .. 127; returns the scale (amax / 127), 0 for a row of zeros. Padding gets code 0.
static float quantize(const float* x, int32_t dim, int64_t padded, int8_t* codes) {
  float most = 0;
  for (int32_t i = 0; i < dim; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
  const float inverse = most > 0 ? 127.0f / most : 0.0f;
  for (int64_t i = 0; i < padded; i++) codes[i] = i < dim ? static_cast<int8_t>(lrintf(x[i] * inverse)) : 0;
  return most / 127.0f;
}

constexpr int kTogether = 2;  // groups of 16 keys: with eight heads they leave no register idle, and read each key once

/// sum += keys . query, four bytes a lane. Beside the intrinsic's sums GCC 12 keeps a copy of each.
SP_INLINE void add_dots(__m512i& sum, __m512i keys, __m512i query) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(keys), "v"(query));
}

/// Adds the parts of H heads to the sums of kTogether groups of keys, each `stride` bytes (quads, 16, 4) after the one
/// before. Meanwhile the lines from `ahead` on, which lie as the keys do, are asked for, unless it is null.
template <int H>
SP_INLINE void add_heads(const SpIndexHeads* query, int32_t from, int64_t quads, const uint8_t* keys,
                         const uint8_t* ahead, __m512* sum) {
  __m512i dot[kTogether][H];
  for (int j = 0; j < H; j++) {
    for (int g = 0; g < kTogether; g++) dot[g][j] = _mm512_set1_epi32(query->start[from + j]);
  }
  const int8_t* q = query->q + from * quads * 4;
  const int64_t stride = quads * 64;
  for (int64_t d = 0; d < quads; d++) {
    // Into the second level: the first can wait for too few at once.
    for (int g = 0; g < kTogether && ahead; g++) __builtin_prefetch(ahead + g * stride + d * 64, 0, 2);
    __m512i k[kTogether];
    for (int g = 0; g < kTogether; g++) k[g] = _mm512_load_si512(keys + g * stride + d * 64);
    for (int j = 0; j < H; j++) {
      const __m512i quad = _mm512_set1_epi32(*(const Quad*)(q + (j * quads + d) * 4));
      for (int g = 0; g < kTogether; g++) add_dots(dot[g][j], k[g], quad);
    }
  }
  for (int j = 0; j < H; j++) {
    const __m512 w = _mm512_set1_ps(query->w[from + j]);
    for (int g = 0; g < kTogether; g++) {
      const __m512 relu = _mm512_cvtepi32_ps(_mm512_max_epi32(dot[g][j], _mm512_setzero_si512()));
      sum[g] = _mm512_fmadd_ps(relu, w, sum[g]);
    }
  }
}

}  // namespace

void sp_quantize_index_query(const float* q, const float* w, int32_t dim, int64_t quads, SpIndexHeads* out) {
  for (int64_t j = 0; j < out->heads; j++) {
    int8_t* codes = out->q + j * quads * 4;
    out->w[j] = w[j] * quantize(q + j * dim, dim, quads * 4, codes);
    int32_t sum = 0;
    for (int64_t i = 0; i < quads * 4; i++) sum += codes[i];
    out->start[j] = -128 * sum;
  }
}

void sp_store_index_key(const SpLayout* layout, const float* key, int64_t at, uint8_t* keys) {
  alignas(64) int8_t codes[4096];
  const float scale = quantize(key, layout->index, layout->index_quads * 4, codes);
  uint8_t* group = keys + at / SP_LANES * layout->index_quads * 64 + at % SP_LANES * 4;
  for (int64_t d = 0; d < layout->index_quads; d++) {
    for (int i = 0; i < 4; i++) group[d * 64 + i] = static_cast<uint8_t>(codes[d * 4 + i] + 128);
  }
  ((float*)(keys + layout->scales_at))[at] = scale;
}

void sp_index_page(const SpIndexHeads* query, const SpLayout* layout, const uint8_t* keys, const uint8_t* next,
                   float* scores) {
  constexpr int kGroups = SP_PAGE_TOKENS / SP_LANES;
  const int64_t quads = layout->index_quads;
  __m512 sum[kGroups];
  for (int g = 0; g < kGroups; g++) {
    if (next) __builtin_prefetch(next + layout->scales_at + g * 64, 0, 2);
    sum[g] = _mm512_setzero_ps();
  }
  for (int g = 0; g < kGroups; g += kTogether) {
    const uint8_t* from = keys + g * quads * 64;
    // Keys of a page may lie far from those of the page before: each line of them would be waited for.
    const uint8_t* ahead = next ? next + g * quads * 64 : nullptr;
    int32_t j = 0;
    for (; j + 8 <= query->heads; j += 8, ahead = nullptr) add_heads<8>(query, j, quads, from, ahead, sum + g);
    if (query->heads - j >= 4) add_heads<4>(query, j, quads, from, ahead, sum + g), j += 4, ahead = nullptr;
    for (; j < query->heads; j++, ahead = nullptr) add_heads<1>(query, j, quads, from, ahead, sum + g);
  }
  for (int g = 0; g < kGroups; g++) {
    const __m512 scale = _mm512_load_ps((const float*)(keys + layout->scales_at) + g * SP_LANES);
    _mm512_storeu_ps(scores + g * SP_LANES, _mm512_mul_ps(sum[g], scale));
  }
}
