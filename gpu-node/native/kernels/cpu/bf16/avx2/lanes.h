// Eight lanes: loads and stores of what is left of a row, sums in a fixed order, BF16 both ways, e^x.
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

constexpr int32_t kLeft[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

/// The first `left` lanes.
SP_INLINE __m256i first_lanes(int64_t left) {
  return _mm256_loadu_si256((const __m256i*)(kLeft + (left >= 8 ? 0 : left <= 0 ? 8 : 8 - left)));
}
SP_INLINE __m256 load_left(const float* p, int64_t left) {
  return left >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(left));
}
SP_INLINE void store_left(float* p, int64_t left, __m256 v) {
  if (left >= 8)
    _mm256_storeu_ps(p, v);
  else
    _mm256_maskstore_ps(p, first_lanes(left), v);
}

/// sum += a * b in place. By itself GCC takes forms that move the sums from register to register, and spills them where
/// all sixteen are in use.
SP_INLINE void add_product(__m256& sum, __m256 a, __m256 b) {
  __asm__ volatile("vfmadd231ps %[b], %[a], %[sum]" : [sum] "+x"(sum) : [a] "x"(a), [b] "x"(b));
}

typedef int32_t Quad __attribute__((may_alias, aligned(1)));

/// sum += w * quad for both halves of a line, 16-bit lanes. In one piece, or GCC keeps the quads of all blocks in
/// registers and the sums in memory.
SP_INLINE void add_quad(__m256i (&sum)[2], const __m256i (&w)[2], const int8_t* quad) {
  __m256i low, high;
  __asm__ volatile(
      "vpbroadcastd %[quad], %[high]\n\t"
      "vpmaddubsw %[high], %[w0], %[low]\n\t"
      "vpmaddubsw %[high], %[w1], %[high]\n\t"
      "vpaddw %[low], %[s0], %[s0]\n\t"
      "vpaddw %[high], %[s1], %[s1]"
      : [s0] "+x"(sum[0]), [s1] "+x"(sum[1]), [low] "=&x"(low), [high] "=&x"(high)
      : [w0] "x"(w[0]), [w1] "x"(w[1]), [quad] "m"(*(const Quad*)quad));
}

/// int8 codes as 16 * high + low, both in -8 .. 8: times at most 255, sixteen of them fit into 16 bits.
struct Parts {
  __m256i low, high;
};
SP_INLINE Parts split_codes(__m256i codes) {
  const __m256i one = _mm256_set1_epi8(1), nibble = _mm256_set1_epi8(15);
  const __m256i shifted = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));  // + 128, unsigned
  const __m256i tops = _mm256_and_si256(_mm256_srli_epi16(shifted, 4), nibble);
  const __m256i round = _mm256_and_si256(_mm256_srli_epi16(shifted, 3), one);
  const __m256i high = _mm256_sub_epi8(_mm256_add_epi8(tops, round), _mm256_set1_epi8(8));
  const __m256i whole = _mm256_and_si256(_mm256_slli_epi16(high, 4), _mm256_set1_epi8(-16));
  return {_mm256_sub_epi8(codes, whole), high};
}

/// Lanes added pairwise, always in the same order.
SP_INLINE float sum_lanes(__m256 v) {
  float part[8];
  _mm256_storeu_ps(part, v);
  for (int width = 4; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) part[i] += part[i + width];
  }
  return part[0];
}
SP_INLINE float largest_lane(__m256 v) {
  float part[8];
  _mm256_storeu_ps(part, v);
  for (int i = 1; i < 8; i++) part[0] = part[i] > part[0] ? part[i] : part[0];
  return part[0];
}
SP_INLINE int32_t sum_lanes(__m256i v) {
  int32_t part[8], sum = 0;
  _mm256_storeu_si256((__m256i*)part, v);
  for (int i = 0; i < 8; i++) sum += part[i];
  return sum;
}
SP_INLINE __m256 size_of(__m256 v) {
  return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF)));
}

/// Eight BF16 as fp32.
SP_INLINE __m256 widen(__m128i half) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
SP_INLINE __m256 load_bf16(const uint16_t* p) {
  return widen(_mm_loadu_si128((const __m128i*)p));
}

/// fp32 to BF16 in the low halves of the lanes, to nearest even; a NaN stays one.
SP_INLINE __m256i round_bf16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i near = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
  const __m256i nan = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(near, nan, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
}
SP_INLINE __m128i to_halves(__m256 v) {
  const __m256i lanes = round_bf16(v);
  return _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
}
/// (low, high) of each lane as a pair of BF16.
SP_INLINE __m256i to_pairs(__m256 low, __m256 high) {
  return _mm256_or_si256(round_bf16(low), _mm256_slli_epi32(round_bf16(high), 16));
}

/// 2^n for whole n in [-126, 127].
SP_INLINE __m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/// As bf16/exp.h has it for 16 lanes; 2^n comes in two factors, so that it may be subnormal.
SP_INLINE __m256 exp_lanes(__m256 x) {
  const __m256 high = _mm256_set1_ps(88.72f), low = _mm256_set1_ps(-104.0f);
  x = _mm256_max_ps(low, _mm256_min_ps(high, x));  // in this order a NaN stays
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), 8);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.0f / 5040);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i power = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(power, 1);
  return _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(half)), power_of_two(_mm256_sub_epi32(power, half)));
}

}  // namespace
