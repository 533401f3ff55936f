// Index scores with int8 keys and queries on AVX2: keys are widened to 16 bits once for all heads, so that vpmaddwd's
// sums are exact. Lanes are two halves of four keys' products. Keys and scores are those of bf16/index.cc.
#include <math.h>

#include "kernels_avx2.h"
#include "lanes.h"

namespace {

typedef int32_t Quad __attribute__((may_alias, aligned(1)));
constexpr int64_t kQuads = 1024;  // most of an index key: 4,096 dimensions

/// Codes of x / scale in -127 .. 127; returns the scale (amax / 127), 0 for a row of zeros. Padding gets code 0.
static float quantize(const float* x, int32_t dim, int64_t padded, int8_t* codes) {
  float most = 0;
  for (int32_t i = 0; i < dim; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
  const float inverse = most > 0 ? 127.0f / most : 0.0f;
  for (int64_t i = 0; i < padded; i++) codes[i] = i < dim ? static_cast<int8_t>(lrintf(x[i] * inverse)) : 0;
  return most / 127.0f;
}

/// A group of 16 keys (quads, 16, 4), offset taken away, as 4 vectors of four keys a quad.
static void widen_keys(const uint8_t* group, int64_t quads, __m256i* keys) {
  const __m256i offset = _mm256_set1_epi16(128);
  for (int64_t i = 0; i < quads * 4; i++) {
    const __m128i codes = _mm_load_si128((const __m128i*)(group + i * 16));
    _mm256_store_si256(keys + i, _mm256_sub_epi16(_mm256_cvtepu8_epi16(codes), offset));
  }
}

/// Adds the parts of H heads to the sums of a group's 16 keys.
template <int H>
SP_INLINE void add_heads(const SpIndexHeads* query, int32_t from, int64_t quads, const __m256i* keys,
                         __m256 (&sum)[2]) {
  __m256i dot[H][4];
  for (int j = 0; j < H; j++) {
    for (int v = 0; v < 4; v++) dot[j][v] = _mm256_setzero_si256();
  }
  const int8_t* q = query->q + from * quads * 4;
  for (int64_t d = 0; d < quads; d++) {
    for (int j = 0; j < H; j++) {
      const __m256i quad = _mm256_cvtepi8_epi16(_mm_set1_epi32(*(const Quad*)(q + (j * quads + d) * 4)));
      for (int v = 0; v < 4; v++) {
        const __m256i product = _mm256_madd_epi16(_mm256_load_si256(keys + d * 4 + v), quad);
        dot[j][v] = _mm256_add_epi32(dot[j][v], product);
      }
    }
  }
  for (int j = 0; j < H; j++) {
    const __m256 w = _mm256_set1_ps(query->w[from + j]);
    for (int i = 0; i < 2; i++) {
      // Within 128 bits: keys 0, 1, 4, 5 and 2, 3, 6, 7.
      const __m256i mixed = _mm256_hadd_epi32(dot[j][2 * i], dot[j][2 * i + 1]);
      const __m256i whole = _mm256_permute4x64_epi64(mixed, 0xD8);
      const __m256 relu = _mm256_cvtepi32_ps(_mm256_max_epi32(whole, _mm256_setzero_si256()));
      sum[i] = _mm256_fmadd_ps(relu, w, sum[i]);
    }
  }
}

}  // namespace

void sp_quantize_index_query_avx2(const float* q, const float* w, int32_t dim, int64_t quads, SpIndexHeads* out) {
  for (int64_t j = 0; j < out->heads; j++) {
    out->w[j] = w[j] * quantize(q + j * dim, dim, quads * 4, out->q + j * quads * 4);
    out->start[j] = 0;  // the keys' offset is taken away from them
  }
}

void sp_store_index_key_avx2(const SpLayout* layout, const float* key, int64_t at, uint8_t* page) {
  int8_t codes[kQuads * 4];
  const float scale = quantize(key, layout->index, layout->index_quads * 4, codes);
  uint8_t* group = page + layout->keys_at + at / SP_LANES * layout->index_quads * 64 + at % SP_LANES * 4;
  for (int64_t d = 0; d < layout->index_quads; d++) {
    for (int i = 0; i < 4; i++) group[d * 64 + i] = static_cast<uint8_t>(codes[d * 4 + i] + 128);
  }
  ((float*)(page + layout->scales_at))[at] = scale;
}

void sp_index_page_avx2(const SpIndexHeads* query, const SpLayout* layout, const uint8_t* page, float* scores) {
  __m256i keys[kQuads * 4];
  const int64_t quads = layout->index_quads;
  for (int g = 0; g < SP_PAGE_TOKENS / SP_LANES; g++) {
    widen_keys(page + layout->keys_at + g * quads * 64, quads, keys);
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    int32_t j = 0;
    for (; j + 2 <= query->heads; j += 2) add_heads<2>(query, j, quads, keys, sum);
    for (; j < query->heads; j++) add_heads<1>(query, j, quads, keys, sum);
    for (int i = 0; i < 2; i++) {
      const int64_t at = g * SP_LANES + i * 8;
      const __m256 scale = _mm256_load_ps((const float*)(page + layout->scales_at) + at);
      _mm256_storeu_ps(scores + at, _mm256_mul_ps(sum[i], scale));
    }
  }
}
