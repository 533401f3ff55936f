// Row operations between the products on AVX2: rounding to BF16, norms, SwiGLU, weighted sums.
#include <math.h>

#include "kernels_avx2.h"
#include "lanes.h"

namespace {

static inline float mean_of(const float* x, int32_t dim) {
  __m256 sum = _mm256_setzero_ps();
  for (int32_t i = 0; i < dim; i += 8) sum = _mm256_add_ps(sum, load_left(x + i, dim - i));
  return sum_lanes(sum) / static_cast<float>(dim);
}

/// Mean of (x - centre)^2.
static inline float spread_of(const float* x, int32_t dim, float centre) {
  __m256 sum = _mm256_setzero_ps();
  for (int32_t i = 0; i < dim; i += 8) {
    const __m256 d = _mm256_sub_ps(load_left(x + i, dim - i), _mm256_set1_ps(centre));
    const __m256 kept = _mm256_and_ps(d, _mm256_castsi256_ps(first_lanes(dim - i)));
    sum = _mm256_fmadd_ps(kept, kept, sum);
  }
  return sum_lanes(sum) / static_cast<float>(dim);
}

}  // namespace

void sp_to_bf16_avx2(const float* x, int64_t count, int64_t padded, uint16_t* y) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) _mm_storeu_si128((__m128i*)(y + i), to_halves(_mm256_loadu_ps(x + i)));
  if (i < count) {
    uint16_t half[8];
    _mm_storeu_si128((__m128i*)half, to_halves(load_left(x + i, count - i)));
    for (int j = 0; i < count; i++) y[i] = half[j++];
  }
  for (; i < padded; i++) y[i] = 0;
}

void sp_from_bf16_avx2(const uint16_t* x, int64_t count, float* y) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(y + i, load_bf16(x + i));
  for (; i < count; i++) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    y[i] = __builtin_bit_cast(float, bits);
  }
}

void sp_rms_norm_row_avx2(const float* x, const float* gain, int32_t dim, float eps, float* y) {
  const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(spread_of(x, dim, 0.0f) + eps));
  for (int32_t i = 0; i < dim; i += 8) {
    const __m256 v = _mm256_mul_ps(load_left(x + i, dim - i), scale);
    store_left(y + i, dim - i, _mm256_mul_ps(v, load_left(gain + i, dim - i)));
  }
}

void sp_layer_norm_row_avx2(const float* x, const float* gain, const float* bias, int32_t dim, float eps, float* y) {
  const float mean = mean_of(x, dim);
  const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(spread_of(x, dim, mean) + eps)), centre = _mm256_set1_ps(mean);
  for (int32_t i = 0; i < dim; i += 8) {
    const __m256 v = _mm256_mul_ps(_mm256_sub_ps(load_left(x + i, dim - i), centre), scale);
    store_left(y + i, dim - i, _mm256_fmadd_ps(v, load_left(gain + i, dim - i), load_left(bias + i, dim - i)));
  }
}

void sp_swiglu_row_avx2(float* gate, const float* up, int64_t count) {
  const __m256 one = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < count; i += 8) {
    const __m256 g = load_left(gate + i, count - i);
    const __m256 sigmoid = _mm256_div_ps(one, _mm256_add_ps(one, exp_lanes(_mm256_sub_ps(_mm256_setzero_ps(), g))));
    store_left(gate + i, count - i, _mm256_mul_ps(_mm256_mul_ps(g, sigmoid), load_left(up + i, count - i)));
  }
}

void sp_add_rows_avx2(const float* const* rows, const float* weights, int32_t count, int64_t dim, float* y) {
  for (int64_t i = 0; i < dim; i += 8) {
    __m256 sum = load_left(y + i, dim - i);
    for (int32_t r = 0; r < count; r++)
      sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[r]), load_left(rows[r] + i, dim - i), sum);
    store_left(y + i, dim - i, sum);
  }
}
