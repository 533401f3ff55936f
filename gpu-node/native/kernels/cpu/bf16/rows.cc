// Rows of KV pages: BF16, or latents as E4M3 with a multiplier for every 128 (DeepSeek-V3.2's own layout: 656 bytes for
// 512 latents and 64 rope values).
#include <immintrin.h>
#include <string.h>

#include "kernels.h"

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

constexpr int kBlock = 128;
constexpr float kLargest = 448;

SP_INLINE __mmask16 left_mask(int64_t left) {
  return left >= 16 ? 0xFFFF : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
}

/// |x| <= 448 to E4M3 codes, to nearest even. Normal numbers keep three bits of their mantissa; below 2^-6 a code is a
/// multiple of 2^-9.
SP_INLINE __m128i to_e4m3(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x), sign = _mm512_srli_epi32(bits, 31);
  const __m512 size = _mm512_abs_ps(x);
  const __m512i magnitude = _mm512_castps_si512(size);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(magnitude, 20), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(magnitude, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFFF)));
  const __m512i normal = _mm512_sub_epi32(_mm512_srli_epi32(rounded, 20), _mm512_set1_epi32(120 << 3));
  const __m512i small = _mm512_cvtps_epi32(_mm512_mul_ps(size, _mm512_set1_ps(512)));
  const __mmask16 is_small = _mm512_cmp_ps_mask(size, _mm512_set1_ps(0x1p-6f), _CMP_LT_OQ);
  const __m512i code = _mm512_mask_mov_epi32(normal, is_small, small);
  return _mm512_cvtepi32_epi8(_mm512_or_si512(code, _mm512_slli_epi32(sign, 7)));
}

/// The other way: the exponent's bias is mended by a multiplication, which also makes normal numbers of subnormal
/// codes.
SP_INLINE __m512 from_e4m3(__m128i codes) {
  const __m512i wide = _mm512_cvtepu8_epi32(codes);
  const __m512i magnitude = _mm512_slli_epi32(_mm512_and_si512(wide, _mm512_set1_epi32(0x7F)), 20);
  const __m512 size = _mm512_mul_ps(_mm512_castsi512_ps(magnitude), _mm512_set1_ps(0x1p120f));
  const __m512i sign = _mm512_slli_epi32(_mm512_srli_epi32(wide, 7), 31);
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(size), sign));
}

static void store_fp8_row(const SpLayout* l, const float* latent, const float* rope, uint8_t* row) {
  uint8_t* scales = row + l->latent;
  const int64_t blocks = (l->latent + kBlock - 1) / kBlock;
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t from = b * kBlock, end = from + kBlock < l->latent ? from + kBlock : l->latent;
    __m512 most = _mm512_setzero_ps(), sum = _mm512_setzero_ps();
    for (int64_t i = from; i < end; i += 16) {
      const __m512 size = _mm512_abs_ps(_mm512_maskz_loadu_ps(left_mask(end - i), latent + i));
      most = _mm512_max_ps(most, size);
      sum = _mm512_add_ps(sum, size);
    }
    const float total = _mm512_reduce_add_ps(sum);
    // A NaN must not get lost in a maximum: it makes the whole block NaN, as the sampler expects of a broken model.
    const float scale = total != total ? total : _mm512_reduce_max_ps(most) / kLargest;
    const __m512 divisor = _mm512_set1_ps(scale == 0 ? 1 : scale), limit = _mm512_set1_ps(kLargest);
    for (int64_t i = from; i < end; i += 16) {
      const __m512 x = _mm512_div_ps(_mm512_maskz_loadu_ps(left_mask(end - i), latent + i), divisor);
      const __m512 kept = _mm512_max_ps(_mm512_min_ps(x, limit), _mm512_sub_ps(_mm512_setzero_ps(), limit));
      _mm_mask_storeu_epi8(row + i, left_mask(end - i), to_e4m3(kept));
    }
    memcpy(scales + b * 4, &scale, 4);
  }
  sp_to_bf16(rope, l->rope, l->rope, (uint16_t*)(scales + blocks * 4));
}

}  // namespace

void sp_store_row(const SpLayout* l, const float* latent, const float* rope, uint8_t* row) {
  if (l->fp8) return store_fp8_row(l, latent, rope, row);
  uint16_t* half = (uint16_t*)row;
  sp_to_bf16(latent, l->latent, l->latent, half);
  sp_to_bf16(rope, l->rope, l->row_halves - l->latent, half + l->latent);
}

void sp_load_fp8_row(const SpLayout* l, const uint8_t* row, uint16_t* half) {
  const uint8_t* scales = row + l->latent;
  const int64_t blocks = (l->latent + kBlock - 1) / kBlock;
  for (int64_t i = 0; i < l->latent; i += 16) {
    float scale;
    memcpy(&scale, scales + i / kBlock * 4, 4);
    const __mmask16 mask = left_mask(l->latent - i);
    const __m512 x = _mm512_mul_ps(from_e4m3(_mm_maskz_loadu_epi8(mask, row + i)), _mm512_set1_ps(scale));
    _mm256_mask_storeu_epi16(half + i, mask, (__m256i)_mm512_cvtneps_pbh(x));
  }
  memcpy(half + l->latent, scales + blocks * 4, static_cast<size_t>(l->rope) * 2);
  memset(half + l->latent + l->rope, 0, static_cast<size_t>(l->row_halves - l->latent - l->rope) * 2);
}
