// Rows of KV pages on AVX2, as bf16/rows.cc has them.
#include <string.h>

#include "kernels_avx2.h"
#include "lanes.h"

namespace {

constexpr int kBlock = 128;
constexpr float kLargest = 448;

/// |x| <= 448 to E4M3 codes in the lanes, to nearest even. Normal numbers keep three bits of their mantissa; below 2^-6
/// a code is a multiple of 2^-9.
SP_INLINE __m256i to_e4m3(__m256 x) {
  const __m256i sign = _mm256_srli_epi32(_mm256_castps_si256(x), 31);
  const __m256 size = size_of(x);
  const __m256i magnitude = _mm256_castps_si256(size);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(magnitude, 20), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(magnitude, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFFF)));
  const __m256i normal = _mm256_sub_epi32(_mm256_srli_epi32(rounded, 20), _mm256_set1_epi32(120 << 3));
  const __m256i small = _mm256_cvtps_epi32(_mm256_mul_ps(size, _mm256_set1_ps(512)));
  const __m256 is_small = _mm256_cmp_ps(size, _mm256_set1_ps(0x1p-6f), _CMP_LT_OQ);
  const __m256i code = _mm256_blendv_epi8(normal, small, _mm256_castps_si256(is_small));
  return _mm256_or_si256(code, _mm256_slli_epi32(sign, 7));
}

/// The other way: the exponent's bias is mended by a multiplication, which also makes normal numbers of subnormal
/// codes.
SP_INLINE __m256 from_e4m3(__m128i codes) {
  const __m256i wide = _mm256_cvtepu8_epi32(codes);
  const __m256i magnitude = _mm256_slli_epi32(_mm256_and_si256(wide, _mm256_set1_epi32(0x7F)), 20);
  const __m256 size = _mm256_mul_ps(_mm256_castsi256_ps(magnitude), _mm256_set1_ps(0x1p120f));
  const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(wide, 7), 31);
  return _mm256_castsi256_ps(_mm256_or_si256(_mm256_castps_si256(size), sign));
}

static void store_fp8_row(const SpLayout* l, const float* latent, const float* rope, uint8_t* row) {
  uint8_t* scales = row + l->latent;
  const int64_t blocks = (l->latent + kBlock - 1) / kBlock;
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t from = b * kBlock, end = from + kBlock < l->latent ? from + kBlock : l->latent;
    __m256 most = _mm256_setzero_ps(), sum = _mm256_setzero_ps();
    for (int64_t i = from; i < end; i += 8) {
      const __m256 size = size_of(load_left(latent + i, end - i));
      most = _mm256_max_ps(most, size);
      sum = _mm256_add_ps(sum, size);
    }
    const float total = sum_lanes(sum);
    // A NaN must not get lost in a maximum: it makes the whole block NaN, as the sampler expects of a broken model.
    const float scale = total != total ? total : largest_lane(most) / kLargest;
    const __m256 divisor = _mm256_set1_ps(scale == 0 ? 1 : scale), limit = _mm256_set1_ps(kLargest);
    for (int64_t i = from; i < end; i += 8) {
      const __m256 x = _mm256_div_ps(load_left(latent + i, end - i), divisor);
      const __m256 kept = _mm256_max_ps(_mm256_min_ps(x, limit), _mm256_sub_ps(_mm256_setzero_ps(), limit));
      int32_t codes[8];
      _mm256_storeu_si256((__m256i*)codes, to_e4m3(kept));
      for (int64_t j = 0; j < 8 && i + j < end; j++) row[i + j] = static_cast<uint8_t>(codes[j]);
    }
    memcpy(scales + b * 4, &scale, 4);
  }
  sp_to_bf16_avx2(rope, l->rope, l->rope, (uint16_t*)(scales + blocks * 4));
}

}  // namespace

void sp_store_row_avx2(const SpLayout* l, const float* latent, const float* rope, uint8_t* row) {
  if (l->fp8) return store_fp8_row(l, latent, rope, row);
  uint16_t* half = (uint16_t*)row;
  sp_to_bf16_avx2(latent, l->latent, l->latent, half);
  sp_to_bf16_avx2(rope, l->rope, l->row_halves - l->latent, half + l->latent);
}

void sp_load_fp8_row_avx2(const SpLayout* l, const uint8_t* row, uint16_t* half) {
  const uint8_t* scales = row + l->latent;
  const int64_t blocks = (l->latent + kBlock - 1) / kBlock;
  for (int64_t i = 0; i < l->latent; i += 8) {
    float scale;
    memcpy(&scale, scales + i / kBlock * 4, 4);
    const int64_t count = l->latent - i < 8 ? l->latent - i : 8;
    uint8_t codes[8] = {};
    memcpy(codes, row + i, static_cast<size_t>(count));
    const __m256 x = _mm256_mul_ps(from_e4m3(_mm_loadl_epi64((const __m128i*)codes)), _mm256_set1_ps(scale));
    uint16_t out[8];
    _mm_storeu_si128((__m128i*)out, to_halves(x));
    memcpy(half + i, out, static_cast<size_t>(count) * 2);
  }
  memcpy(half + l->latent, scales + blocks * 4, static_cast<size_t>(l->rope) * 2);
  memset(half + l->latent + l->rope, 0, static_cast<size_t>(l->row_halves - l->latent - l->rope) * 2);
}
