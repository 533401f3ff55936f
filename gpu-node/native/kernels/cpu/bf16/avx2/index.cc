// Index scores with int8 keys and queries on AVX2. Keys stay unsigned (code + 128) and are those of bf16/index.cc.
// vpmaddubsw adds two products in 16 bits; a query's codes are as large as every such sum allows, so that a step
// is up to twice that of bf16/index.cc. Sums are exact.
#include <math.h>

#include "kernels_avx2.h"
#include "lanes.h"

namespace {

constexpr int64_t kQuads = 1024;  // most of an index key: 4,096 dimensions

/// Codes of x / scale in -127 .. 127; returns the scale (amax / 127), 0 for a row of zeros. Padding gets code 0.
static float quantize(const float* x, int32_t dim, int64_t padded, int8_t* codes) {
  float most = 0;
  for (int32_t i = 0; i < dim; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
  const float inverse = most > 0 ? 127.0f / most : 0.0f;
  for (int64_t i = 0; i < padded; i++) codes[i] = i < dim ? static_cast<int8_t>(lrintf(x[i] * inverse)) : 0;
  return most / 127.0f;
}

/// Codes of which no two neighbours (2i, 2i + 1) have more than 128 together, rounding included: times 255 they fit
/// into 16 bits. Otherwise as quantize.
static float quantize_pairs(const float* x, int32_t dim, int64_t padded, int8_t* codes) {
  float most = 0;
  for (int32_t i = 0; i < dim; i += 2) {
    const float pair = fabsf(x[i]) + (i + 1 < dim ? fabsf(x[i + 1]) : 0.0f);
    most = pair > most ? pair : most;
  }
  const float inverse = most > 0 ? 127.0f / most : 0.0f;
  for (int64_t i = 0; i < padded; i++) codes[i] = i < dim ? static_cast<int8_t>(lrintf(x[i] * inverse)) : 0;
  return most / 127.0f;
}

/// sum += keys * quad for both halves of a line, 32-bit lanes. In one piece, as add_quad is.
SP_INLINE void add_quad_pairs(__m256i (&sum)[2], const __m256i (&key)[2], __m256i one, const int8_t* quad) {
  __m256i low, high;
  __asm__ volatile(
      "vpbroadcastd %[quad], %[high]\n\t"
      "vpmaddubsw %[high], %[k0], %[low]\n\t"
      "vpmaddubsw %[high], %[k1], %[high]\n\t"
      "vpmaddwd %[one], %[low], %[low]\n\t"
      "vpmaddwd %[one], %[high], %[high]\n\t"
      "vpaddd %[low], %[s0], %[s0]\n\t"
      "vpaddd %[high], %[s1], %[s1]"
      : [s0] "+x"(sum[0]), [s1] "+x"(sum[1]), [low] "=&x"(low), [high] "=&x"(high)
      : [k0] "x"(key[0]), [k1] "x"(key[1]), [one] "x"(one), [quad] "m"(*(const Quad*)quad));
}

constexpr int kHeads = 4;  // of one pass over a group's keys

/// Adds the parts of H heads to the sums of a group's 16 keys (quads, 16, 4). Meanwhile the lines from `ahead` on are
/// asked for, one a quad, unless it is null: into the second level, as the first can wait for too few at once.
template <int H>
SP_INLINE void add_heads(const SpIndexHeads* query, int32_t from, int64_t quads, const uint8_t* keys,
                         const uint8_t* ahead, __m256 (&sum)[2]) {
  const int8_t* q = query->q + from * quads * 4;
  const __m256i one = _mm256_set1_epi16(1);
  __m256i dot[H][2];
#pragma GCC unroll 4
  for (int j = 0; j < H; j++) dot[j][0] = dot[j][1] = _mm256_set1_epi32(query->start[from + j]);
  for (int64_t d = 0; d < quads; d++) {
    const __m256i key[2] = {_mm256_load_si256((const __m256i*)(keys + d * 64)),
                            _mm256_load_si256((const __m256i*)(keys + d * 64 + 32))};
    if (ahead) __builtin_prefetch(ahead + d * 64, 0, 2);
#pragma GCC unroll 4
    for (int j = 0; j < H; j++) add_quad_pairs(dot[j], key, one, q + (j * quads + d) * 4);
  }
#pragma GCC unroll 4
  for (int j = 0; j < H; j++) {
    const __m256 w = _mm256_set1_ps(query->w[from + j]);
    for (int i = 0; i < 2; i++) {
      const __m256 relu = _mm256_cvtepi32_ps(_mm256_max_epi32(dot[j][i], _mm256_setzero_si256()));
      sum[i] = _mm256_fmadd_ps(relu, w, sum[i]);
    }
  }
}

}  // namespace

void sp_quantize_index_query_avx2(const float* q, const float* w, int32_t dim, int64_t quads, SpIndexHeads* out) {
  for (int64_t j = 0; j < out->heads; j++) {
    int8_t* codes = out->q + j * quads * 4;
    out->w[j] = w[j] * quantize_pairs(q + j * dim, dim, quads * 4, codes);
    int32_t sum = 0;
    for (int64_t i = 0; i < quads * 4; i++) sum += codes[i];
    out->start[j] = -128 * sum;
  }
}

void sp_store_index_key_avx2(const SpLayout* layout, const float* key, int64_t at, uint8_t* keys) {
  int8_t codes[kQuads * 4];
  const float scale = quantize(key, layout->index, layout->index_quads * 4, codes);
  uint8_t* group = keys + at / SP_LANES * layout->index_quads * 64 + at % SP_LANES * 4;
  for (int64_t d = 0; d < layout->index_quads; d++) {
    for (int i = 0; i < 4; i++) group[d * 64 + i] = static_cast<uint8_t>(codes[d * 4 + i] + 128);
  }
  ((float*)(keys + layout->scales_at))[at] = scale;
}

void sp_index_page_avx2(const SpIndexHeads* query, const SpLayout* layout, const uint8_t* keys, const uint8_t* next,
                        float* scores) {
  const int64_t quads = layout->index_quads;
  for (int g = 0; g < SP_PAGE_TOKENS / SP_LANES; g++) {
    const uint8_t* from = keys + g * quads * 64;
    // Keys of a page may lie far from those of the page before: each line of them would be waited for.
    const uint8_t* ahead = next ? next + g * quads * 64 : nullptr;
    if (next) __builtin_prefetch(next + layout->scales_at + g * 64, 0, 2);
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    int32_t j = 0;
    for (; j + kHeads <= query->heads; j += kHeads) add_heads<kHeads>(query, j, quads, from, j ? nullptr : ahead, sum);
    if (query->heads - j == 3) add_heads<3>(query, j, quads, from, j ? nullptr : ahead, sum);
    if (query->heads - j == 2) add_heads<2>(query, j, quads, from, j ? nullptr : ahead, sum);
    if (query->heads - j == 1) add_heads<1>(query, j, quads, from, j ? nullptr : ahead, sum);
    for (int i = 0; i < 2; i++) {
      const int64_t at = g * SP_LANES + i * 8;
      const __m256 scale = _mm256_load_ps((const float*)(keys + layout->scales_at) + at);
      _mm256_storeu_ps(scores + at, _mm256_mul_ps(sum[i], scale));
    }
  }
}
