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

/// Adds H heads' part to `sum` for the 16 keys at `keys` (quads, 16, 4).
template <int H>
SP_INLINE __m512 add_heads(const SpIndexHeads* query, int32_t from, int64_t quads, const uint8_t* keys, __m512 sum) {
  __m512i dot[H];
  for (int j = 0; j < H; j++) dot[j] = _mm512_set1_epi32(query->start[from + j]);
  const int8_t* q = query->q + from * quads * 4;
  for (int64_t d = 0; d < quads; d++) {
    const __m512i k = _mm512_load_si512(keys + d * 64);
    for (int j = 0; j < H; j++)
      dot[j] = _mm512_dpbusd_epi32(dot[j], k, _mm512_set1_epi32(*(const Quad*)(q + (j * quads + d) * 4)));
  }
  for (int j = 0; j < H; j++) {
    const __m512 relu = _mm512_cvtepi32_ps(_mm512_max_epi32(dot[j], _mm512_setzero_si512()));
    sum = _mm512_fmadd_ps(relu, _mm512_set1_ps(query->w[from + j]), sum);
  }
  return sum;
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

void sp_store_index_key(const SpLayout* layout, const float* key, int64_t at, uint8_t* page) {
  alignas(64) int8_t codes[4096];
  const float scale = quantize(key, layout->index, layout->index_quads * 4, codes);
  uint8_t* group = page + layout->keys_at + at / SP_LANES * layout->index_quads * 64 + at % SP_LANES * 4;
  for (int64_t d = 0; d < layout->index_quads; d++) {
    for (int i = 0; i < 4; i++) group[d * 64 + i] = static_cast<uint8_t>(codes[d * 4 + i] + 128);
  }
  ((float*)(page + layout->scales_at))[at] = scale;
}

void sp_index_page(const SpIndexHeads* query, const SpLayout* layout, const uint8_t* page, float* scores) {
  for (int64_t g = 0; g < SP_PAGE_TOKENS / SP_LANES; g++) {
    const uint8_t* keys = page + layout->keys_at + g * layout->index_quads * 64;
    __m512 sum = _mm512_setzero_ps();
    int32_t j = 0;
    for (; j + 8 <= query->heads; j += 8) sum = add_heads<8>(query, j, layout->index_quads, keys, sum);
    if (query->heads - j >= 4) sum = add_heads<4>(query, j, layout->index_quads, keys, sum), j += 4;
    for (; j < query->heads; j++) sum = add_heads<1>(query, j, layout->index_quads, keys, sum);
    const __m512 scale = _mm512_load_ps((const float*)(page + layout->scales_at) + g * SP_LANES);
    _mm512_storeu_ps(scores + g * SP_LANES, _mm512_mul_ps(sum, scale));
  }
}

int32_t sp_append_above(const float* scores, int32_t count, float floor, int32_t first, float* out,
                        int32_t* positions) {
  const __m512 limit = _mm512_set1_ps(floor);
  const __m512i ramp = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  int32_t found = 0;
  for (int32_t i = 0; i < count; i += 16) {
    const __mmask16 valid = count - i >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << (count - i)) - 1);
    const __m512 s = _mm512_maskz_loadu_ps(valid, scores + i);
    const __mmask16 above = _mm512_mask_cmp_ps_mask(valid, s, limit, _CMP_GT_OQ);
    if (!above) continue;
    _mm512_storeu_ps(out + found, _mm512_maskz_compress_ps(above, s));
    _mm512_storeu_si512(positions + found,
                        _mm512_maskz_compress_epi32(above, _mm512_add_epi32(_mm512_set1_epi32(first + i), ramp)));
    found += __builtin_popcount(above);
  }
  return found;
}
