// The parts of expanded attention that are no matrix product, on AVX2: packing of keys and values, softmax of one row
// under a mask.
#include <math.h>

#include "kernels_avx2.h"
#include "lanes.h"

namespace {

/// Lanes of the eight bits of a mask.
SP_INLINE __m256 lanes_of(uint32_t mask) {
  const __m256i bit = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bit), bit));
}

}  // namespace

void sp_pack_keys_avx2(const SpLayout* layout, const float* latents, const float* ropes, int32_t keys, uint16_t* to) {
  const int64_t latent = layout->latent, rope = layout->rope;
  for (int64_t key = 0; key < SP_LANES; key++) {
    const auto value = [&](int64_t d) {
      if (key >= keys || d >= latent + rope) return 0.0f;
      return d < latent ? latents[key * latent + d] : ropes[key * rope + d - latent];
    };
    for (int64_t d = 0; d < layout->row_halves; d += 8) {
      float row[8];
      for (int64_t i = 0; i < 8; i++) row[i] = value(d + i);
      uint16_t half[8];
      _mm_storeu_si128((__m128i*)half, to_halves(_mm256_loadu_ps(row)));
      for (int64_t i = 0; i < 8; i++) to[(d + i) / 2 * SP_LANES * 2 + key * 2 + (d + i) % 2] = half[i];
    }
  }
}

void sp_pack_values_avx2(const float* values, int64_t ld, int32_t keys, int32_t dims, int64_t block_halves,
                         uint16_t* to) {
  for (int64_t k = 0; k < keys; k += 2) {
    for (int64_t d = 0; d < (dims + SP_LANES - 1) / SP_LANES * SP_LANES; d += 8) {
      const __m256 a = load_left(values + k * ld + d, dims - d);
      const __m256 b = k + 1 < keys ? load_left(values + (k + 1) * ld + d, dims - d) : _mm256_setzero_ps();
      _mm256_store_si256((__m256i*)(to + d / SP_LANES * block_halves + k * SP_LANES + d % SP_LANES * 2),
                         to_pairs(a, b));
    }
  }
}

float sp_masked_softmax_avx2(const float* scores, const uint16_t* masks, int32_t own, int32_t blocks, float scale,
                             uint16_t* weights) {
  const __m256 factor = _mm256_set1_ps(scale), lowest = _mm256_set1_ps(-INFINITY);
  __m256 most = lowest, total = _mm256_setzero_ps();
  for (int32_t b = 0; b < 2 * own; b++) {
    const __m256 s = _mm256_mul_ps(_mm256_loadu_ps(scores + b * 8), factor);
    most = _mm256_max_ps(most, _mm256_blendv_ps(lowest, s, lanes_of(masks[b / 2] >> (b % 2 * 8))));
  }
  const __m256 top = _mm256_set1_ps(largest_lane(most));
  for (int32_t b = 0; b < 2 * own; b++) {
    const __m256 s = _mm256_mul_ps(_mm256_loadu_ps(scores + b * 8), factor);
    const __m256 e = _mm256_and_ps(exp_lanes(_mm256_sub_ps(s, top)), lanes_of(masks[b / 2] >> (b % 2 * 8)));
    total = _mm256_add_ps(total, e);
    _mm_storeu_si128((__m128i*)(weights + b * 8), to_halves(e));
  }
  for (int32_t b = 2 * own; b < 2 * blocks; b++) _mm_storeu_si128((__m128i*)(weights + b * 8), _mm_setzero_si128());
  return sum_lanes(total);
}

void sp_divide_row_avx2(float* y, int32_t dims, float total) {
  const __m256 scale = _mm256_set1_ps(1.0f / total);
  for (int32_t d = 0; d < dims; d += 8)
    store_left(y + d, dims - d, _mm256_fmadd_ps(load_left(y + d, dims - d), scale, _mm256_setzero_ps()));
}
