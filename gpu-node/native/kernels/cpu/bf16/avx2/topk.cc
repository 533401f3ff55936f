// Vector loops of the exact top-k on AVX2: what stays is compressed by a table of permutations.
#include "kernels_avx2.h"
#include "lanes.h"

namespace {

/// For each mask of eight lanes, the set ones first.
struct Compress {
  int32_t order[256][8];
  constexpr Compress() : order() {
    for (int mask = 0; mask < 256; mask++) {
      int at = 0;
      for (int lane = 0; lane < 8; lane++) {
        if (mask >> lane & 1) order[mask][at++] = lane;
      }
    }
  }
};
constexpr Compress kCompress;

SP_INLINE __m256i compress(__m256i v, uint32_t mask) {
  return _mm256_permutevar8x32_epi32(v, _mm256_loadu_si256((const __m256i*)kCompress.order[mask]));
}
SP_INLINE __m256i load_keys(const int32_t* p, int32_t left) {
  return left >= 8 ? _mm256_loadu_si256((const __m256i*)p) : _mm256_maskload_epi32(p, first_lanes(left));
}
SP_INLINE uint32_t bits_of(__m256i lanes) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
}
SP_INLINE uint32_t valid_bits(int32_t left) {
  return left >= 8 ? 255 : (1u << left) - 1;
}

/// Keys above `limit`.
static int32_t count_above(const int32_t* keys, int32_t count, int32_t limit) {
  const __m256i least = _mm256_set1_epi32(limit);
  __m256i found[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  int32_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 2; j++) {
      const __m256i key = _mm256_loadu_si256((const __m256i*)(keys + i + j * 8));
      found[j] = _mm256_sub_epi32(found[j], _mm256_cmpgt_epi32(key, least));
    }
  }
  int32_t rest = 0;
  for (; i < count; i++) rest += keys[i] > limit;
  return rest + sum_lanes(_mm256_add_epi32(found[0], found[1]));
}

/// The first `n` set bits of `mask`.
static inline uint32_t first_bits(uint32_t mask, int32_t n) {
  uint32_t out = 0;
  for (; mask && n > 0; n--, mask &= mask - 1) out |= mask & -mask;
  return out;
}

}  // namespace

void sp_order_keys_avx2(const float* scores, int32_t count, int32_t* keys) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  for (int32_t i = 0; i < count; i += 8) {
    // Adding zero makes one zero of two.
    const __m256 s = _mm256_add_ps(load_left(scores + i, count - i), _mm256_setzero_ps());
    const __m256i bits = _mm256_castps_si256(s), sign = _mm256_srai_epi32(bits, 31);
    const __m256i key = _mm256_xor_si256(bits, _mm256_and_si256(sign, magnitude));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(s, s, _CMP_UNORD_Q));
    const __m256i safe = _mm256_blendv_epi8(key, _mm256_set1_epi32(SP_KEY_NAN), nan);
    store_left((float*)(keys + i), count - i, _mm256_castsi256_ps(safe));
  }
}

int32_t sp_append_above_avx2(const int32_t* keys, int32_t count, int32_t floor, int32_t first, int32_t* out,
                             int32_t* positions) {
  const __m256i limit = _mm256_set1_epi32(floor), ramp = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  int32_t found = 0;
  for (int32_t i = 0; i < count; i += 8) {
    const __m256i key = load_keys(keys + i, count - i);
    const uint32_t above = bits_of(_mm256_cmpgt_epi32(key, limit)) & valid_bits(count - i);
    if (!above) continue;
    const __m256i at = _mm256_add_epi32(_mm256_set1_epi32(first + i), ramp);
    _mm256_storeu_si256((__m256i*)(out + found), compress(key, above));
    _mm256_storeu_si256((__m256i*)(positions + found), compress(at, above));
    found += __builtin_popcount(above);
  }
  return found;
}

int32_t sp_cut_avx2(const int32_t* keys, int32_t count, int32_t k, int32_t slack, int32_t* kept) {
  __m256i least = _mm256_set1_epi32(INT32_MAX), most = _mm256_set1_epi32(INT32_MIN);
  int32_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i key = _mm256_loadu_si256((const __m256i*)(keys + i));
    least = _mm256_min_epi32(least, key);
    most = _mm256_max_epi32(most, key);
  }
  int32_t lows[8], highs[8];
  _mm256_storeu_si256((__m256i*)lows, least);
  _mm256_storeu_si256((__m256i*)highs, most);
  int64_t low = INT32_MAX, high = INT32_MIN;
  for (int j = 0; j < 8; j++) {
    low = lows[j] < low ? lows[j] : low;
    high = highs[j] > high ? highs[j] : high;
  }
  for (; i < count; i++) {
    low = keys[i] < low ? keys[i] : low;
    high = keys[i] > high ? keys[i] : high;
  }
  *kept = count;  // keys of at least `low`, never fewer than k
  while (low<high&& * kept> k + slack) {
    const int64_t middle = low + (high - low + 1) / 2;
    const int32_t above = count_above(keys, count, static_cast<int32_t>(middle - 1));
    if (above >= k)
      low = middle, *kept = above;
    else
      high = middle - 1;
  }
  return static_cast<int32_t>(low);
}

int32_t sp_keep_from_avx2(int32_t* keys, int32_t* positions, int32_t count, int32_t cut, int32_t ties) {
  const __m256i limit = _mm256_set1_epi32(cut);
  int32_t out = 0;
  for (int32_t i = 0; i < count; i += 8) {
    const uint32_t valid = valid_bits(count - i);
    const __m256i key = load_keys(keys + i, count - i), at = load_keys(positions + i, count - i);
    uint32_t stays = bits_of(_mm256_cmpgt_epi32(key, limit)) & valid;
    const uint32_t equal = first_bits(bits_of(_mm256_cmpeq_epi32(key, limit)) & valid, ties);
    ties -= __builtin_popcount(equal);
    stays |= equal;
    // Never past what was read: `out` <= i, and the lanes beyond `stays` are rewritten later or dropped.
    store_left((float*)(keys + out), count - out, _mm256_castsi256_ps(compress(key, stays)));
    store_left((float*)(positions + out), count - out, _mm256_castsi256_ps(compress(at, stays)));
    out += __builtin_popcount(stays);
  }
  return out;
}
