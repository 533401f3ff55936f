// Vector loops of the exact top-k: scores become integers of the same order, the k-th largest is found by halving the
// range that holds it, and what stays is compressed in place.
#include <immintrin.h>

#include "kernels.h"

namespace {

static inline __mmask16 left_mask(int32_t left) {
  return left >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
}

/// Keys of at least `least`.
static int32_t count_from(const int32_t* keys, int32_t count, int32_t least) {
  const __m512i limit = _mm512_set1_epi32(least), one = _mm512_set1_epi32(1);
  __m512i found[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  int32_t i = 0;
  for (; i + 32 <= count; i += 32) {
    for (int j = 0; j < 2; j++) {
      const __mmask16 hit = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(keys + i + j * 16), limit);
      found[j] = _mm512_mask_add_epi32(found[j], hit, found[j], one);
    }
  }
  int32_t rest = 0;
  for (; i < count; i += 16) {
    const __m512i key = _mm512_maskz_loadu_epi32(left_mask(count - i), keys + i);
    rest += __builtin_popcount(_mm512_mask_cmpge_epi32_mask(left_mask(count - i), key, limit));
  }
  return rest + _mm512_reduce_add_epi32(_mm512_add_epi32(found[0], found[1]));
}

/// The first `n` set bits of `mask`.
static inline uint32_t first_bits(uint32_t mask, int32_t n) {
  uint32_t out = 0;
  for (; mask && n > 0; n--, mask &= mask - 1) out |= mask & -mask;
  return out;
}

}  // namespace

void sp_order_keys(const float* scores, int32_t count, int32_t* keys) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  for (int32_t i = 0; i < count; i += 16) {
    // Adding zero makes one zero of two.
    const __m512 s = _mm512_add_ps(_mm512_maskz_loadu_ps(left_mask(count - i), scores + i), _mm512_setzero_ps());
    const __m512i bits = _mm512_castps_si512(s), sign = _mm512_srai_epi32(bits, 31);
    const __m512i key = _mm512_xor_si512(bits, _mm512_and_si512(sign, magnitude));
    const __mmask16 nan = _mm512_cmp_ps_mask(s, s, _CMP_UNORD_Q);
    _mm512_mask_storeu_epi32(keys + i, left_mask(count - i),
                             _mm512_mask_mov_epi32(key, nan, _mm512_set1_epi32(SP_KEY_NAN)));
  }
}

int32_t sp_append_above(const int32_t* keys, int32_t count, int32_t floor, int32_t first, int32_t* out,
                        int32_t* positions) {
  const __m512i limit = _mm512_set1_epi32(floor);
  const __m512i ramp = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  int32_t found = 0;
  for (int32_t i = 0; i < count; i += 16) {
    const __mmask16 valid = left_mask(count - i);
    const __m512i key = _mm512_maskz_loadu_epi32(valid, keys + i);
    const __mmask16 above = _mm512_mask_cmpgt_epi32_mask(valid, key, limit);
    if (!above) continue;
    _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(above, key));
    _mm512_storeu_si512(positions + found,
                        _mm512_maskz_compress_epi32(above, _mm512_add_epi32(_mm512_set1_epi32(first + i), ramp)));
    found += __builtin_popcount(above);
  }
  return found;
}

int32_t sp_cut(const int32_t* keys, int32_t count, int32_t k, int32_t slack, int32_t* kept) {
  __m512i least = _mm512_set1_epi32(INT32_MAX), most = _mm512_set1_epi32(INT32_MIN);
  for (int32_t i = 0; i < count; i += 16) {
    const __m512i key = _mm512_maskz_loadu_epi32(left_mask(count - i), keys + i);
    least = _mm512_mask_min_epi32(least, left_mask(count - i), least, key);
    most = _mm512_mask_max_epi32(most, left_mask(count - i), most, key);
  }
  int64_t low = _mm512_reduce_min_epi32(least), high = _mm512_reduce_max_epi32(most);
  *kept = count;  // keys of at least `low`, never fewer than k
  while (low<high&& * kept> k + slack) {
    const int64_t middle = low + (high - low + 1) / 2;
    const int32_t above = count_from(keys, count, static_cast<int32_t>(middle));
    if (above >= k)
      low = middle, *kept = above;
    else
      high = middle - 1;
  }
  return static_cast<int32_t>(low);
}

int32_t sp_keep_from(int32_t* keys, int32_t* positions, int32_t count, int32_t cut, int32_t ties) {
  const __m512i limit = _mm512_set1_epi32(cut);
  int32_t out = 0;
  for (int32_t i = 0; i < count; i += 16) {
    const __mmask16 valid = left_mask(count - i);
    const __m512i key = _mm512_maskz_loadu_epi32(valid, keys + i), at = _mm512_maskz_loadu_epi32(valid, positions + i);
    uint32_t stays = _mm512_mask_cmpgt_epi32_mask(valid, key, limit);
    const uint32_t equal = first_bits(_mm512_mask_cmpeq_epi32_mask(valid, key, limit), ties);
    ties -= __builtin_popcount(equal);
    stays |= equal;
    // Never past what was read: `out` <= i, and the lanes beyond `stays` are rewritten later or dropped.
    _mm512_mask_storeu_epi32(keys + out, left_mask(__builtin_popcount(stays)), _mm512_maskz_compress_epi32(stays, key));
    _mm512_mask_storeu_epi32(positions + out, left_mask(__builtin_popcount(stays)),
                             _mm512_maskz_compress_epi32(stays, at));
    out += __builtin_popcount(stays);
  }
  return out;
}
