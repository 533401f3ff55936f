// The parts of expanded attention that are no matrix product: packing of values, softmax of one row under a mask.
#include <immintrin.h>
#include <math.h>

#include "exp.h"
#include "kernels.h"

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

SP_INLINE __mmask16 left_mask(int64_t left) {
  return left >= 16 ? 0xFFFF : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
}

}  // namespace

void sp_pack_values(const float* values, int64_t ld, int32_t keys, int32_t dims, int64_t block_halves, uint16_t* to) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  for (int64_t k = 0; k < keys; k += 2) {
    for (int64_t d = 0; d < dims; d += SP_LANES) {
      const __m512 a = _mm512_maskz_loadu_ps(left_mask(dims - d), values + k * ld + d);
      const __m512 b = _mm512_maskz_loadu_ps(k + 1 < keys ? left_mask(dims - d) : 0, values + (k + 1) * ld + d);
      _mm512_store_si512(to + d / SP_LANES * block_halves + k * SP_LANES,
                         _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a)));
    }
  }
}

float sp_masked_softmax(const float* scores, const uint16_t* masks, int32_t own, int32_t blocks, float scale,
                        uint16_t* weights) {
  const __m512 factor = _mm512_set1_ps(scale);
  __m512 most = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
  for (int32_t b = 0; b < own; b++)
    most = _mm512_mask_max_ps(most, masks[b], most, _mm512_mul_ps(_mm512_loadu_ps(scores + b * SP_LANES), factor));
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
  for (int32_t b = 0; b < own; b++) {
    const __m512 s = _mm512_mul_ps(_mm512_loadu_ps(scores + b * SP_LANES), factor);
    const __m512 e = _mm512_maskz_mov_ps(masks[b], sp_exp(_mm512_sub_ps(s, top)));
    total = _mm512_add_ps(total, e);
    _mm256_storeu_si256((__m256i*)(weights + b * SP_LANES), (__m256i)_mm512_cvtneps_pbh(e));
  }
  for (int32_t b = own; b < blocks; b++)
    _mm256_storeu_si256((__m256i*)(weights + b * SP_LANES), _mm256_setzero_si256());
  return _mm512_reduce_add_ps(total);
}

void sp_divide_row(float* y, int32_t dims, float total) {
  const __m512 scale = _mm512_set1_ps(1.0f / total);
  for (int32_t d = 0; d < dims; d += SP_LANES) {
    const __mmask16 mask = left_mask(dims - d);
    _mm512_mask_storeu_ps(y + d, mask, _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, y + d), scale, _mm512_setzero_ps()));
  }
}
