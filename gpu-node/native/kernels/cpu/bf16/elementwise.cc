// Row operations between the products: rounding to BF16, norms, SwiGLU, weighted sums.
#include <immintrin.h>
#include <math.h>

#include "exp.h"
#include "kernels.h"

namespace {

static inline __mmask16 left_mask(int64_t left) {
  return left >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
}

/// Lanes added pairwise, always in the same order.
static inline float sum_lanes(__m512 v) {
  float part[16];
  _mm512_storeu_ps(part, v);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) part[i] += part[i + width];
  }
  return part[0];
}

static inline float mean_of(const float* x, int32_t dim) {
  __m512 sum = _mm512_setzero_ps();
  for (int32_t i = 0; i < dim; i += 16) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(left_mask(dim - i), x + i));
  return sum_lanes(sum) / static_cast<float>(dim);
}

/// Mean of (x - centre)^2.
static inline float spread_of(const float* x, int32_t dim, float centre) {
  __m512 sum = _mm512_setzero_ps();
  for (int32_t i = 0; i < dim; i += 16) {
    const __mmask16 mask = left_mask(dim - i);
    const __m512 d = _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, x + i), _mm512_set1_ps(centre));
    sum = _mm512_fmadd_ps(d, d, sum);
  }
  return sum_lanes(sum) / static_cast<float>(dim);
}

}  // namespace

void sp_to_bf16(const float* x, int64_t count, int64_t padded, uint16_t* y) {
  int64_t i = 0;
  for (; i < count; i += 16) {
    const __m256bh half = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(left_mask(count - i), x + i));
    _mm256_mask_storeu_epi16(y + i, left_mask(padded - i), (__m256i)half);
  }
  for (; i < padded; i++) y[i] = 0;
}

void sp_rms_norm_row(const float* x, const float* gain, int32_t dim, float eps, float* y) {
  const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(spread_of(x, dim, 0.0f) + eps));
  for (int32_t i = 0; i < dim; i += 16) {
    const __mmask16 mask = left_mask(dim - i);
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, gain + i)));
  }
}

void sp_layer_norm_row(const float* x, const float* gain, const float* bias, int32_t dim, float eps, float* y) {
  const float mean = mean_of(x, dim);
  const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(spread_of(x, dim, mean) + eps)), centre = _mm512_set1_ps(mean);
  for (int32_t i = 0; i < dim; i += 16) {
    const __mmask16 mask = left_mask(dim - i);
    const __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), centre), scale);
    _mm512_mask_storeu_ps(
        y + i, mask, _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(mask, gain + i), _mm512_maskz_loadu_ps(mask, bias + i)));
  }
}

void sp_swiglu_row(float* gate, const float* up, int64_t count) {
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = left_mask(count - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 sigmoid = _mm512_div_ps(one, _mm512_add_ps(one, sp_exp(_mm512_sub_ps(_mm512_setzero_ps(), g))));
    _mm512_mask_storeu_ps(gate + i, mask,
                          _mm512_mul_ps(_mm512_mul_ps(g, sigmoid), _mm512_maskz_loadu_ps(mask, up + i)));
  }
}

void sp_add_rows(const float* const* rows, const float* weights, int32_t count, int64_t dim, float* y) {
  for (int64_t i = 0; i < dim; i += 16) {
    const __mmask16 mask = left_mask(dim - i);
    __m512 sum = _mm512_maskz_loadu_ps(mask, y + i);
    for (int32_t r = 0; r < count; r++)
      sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[r]), _mm512_maskz_loadu_ps(mask, rows[r] + i), sum);
    _mm512_mask_storeu_ps(y + i, mask, sum);
  }
}

void sp_from_bf16(const uint16_t* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; i += 16) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(left_mask(count - i), x + i));
    _mm512_mask_storeu_ps(y + i, left_mask(count - i), _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
  }
}
