// What the attention kernels of AVX-512 and AMX share: softmax of a chunk's scores, and a transposition.
#pragma once
#include <immintrin.h>
#include <math.h>

#include "exp.h"
#include "kernels.h"

namespace {

/// scores -> weights of key pairs (pair, head, 2) as BF16; tops and totals per head. An odd last key gets a zero
/// partner.
static void sp_chunk_softmax(const SpChunk* c, float* scores, uint16_t* weights, SpSoftmax* out) {
  const __m512 scale = _mm512_set1_ps(c->scale);
  __m512 top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
  for (int32_t i = 0; i < c->keys.count; i++) {
    const __m512 s = _mm512_mul_ps(_mm512_load_ps(scores + i * SP_LANES), scale);
    _mm512_store_ps(scores + i * SP_LANES, s);
    top = _mm512_max_ps(top, s);
  }
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  for (int32_t i = 0; i < c->keys.count; i += 2) {
    const __m512 a = sp_exp(_mm512_sub_ps(_mm512_load_ps(scores + i * SP_LANES), top));
    const __m512 b = i + 1 < c->keys.count ? sp_exp(_mm512_sub_ps(_mm512_load_ps(scores + (i + 1) * SP_LANES), top))
                                           : _mm512_setzero_ps();
    total = _mm512_add_ps(_mm512_add_ps(total, a), b);
    _mm512_store_si512(weights + i * SP_LANES, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a)));
  }
  _mm512_storeu_ps(out->top, top);
  _mm512_storeu_ps(out->total, total);
}

/// 32 columns, of which `left` are wanted: sums of those that unpacking within 128 bits calls low (0-3, 8-11, ...), and
/// of the others.
static inline __attribute__((always_inline)) void sp_store_unpacked(__m512 low, __m512 high, int64_t left, float* to) {
  const __m512i first = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
  const __m512i second = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
  const __mmask16 m0 = left >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
  const __mmask16 m1 = left >= 32 ? 0xFFFF : left <= 16 ? 0 : static_cast<__mmask16>((1u << (left - 16)) - 1);
  _mm512_mask_storeu_ps(to, m0, _mm512_permutex2var_ps(low, first, high));
  _mm512_mask_storeu_ps(to + 16, m1, _mm512_permutex2var_ps(low, second, high));
}

/// 16 rows of 16 words become 16 columns.
static inline __attribute__((always_inline)) void sp_transpose(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int half = 0; half < 16; half += 8) {
    for (int i = 0; i < 4; i++) {
      t[half + i] = _mm512_shuffle_i32x4(r[half + i], r[half + i + 4], 0x88);
      t[half + i + 4] = _mm512_shuffle_i32x4(r[half + i], r[half + i + 4], 0xDD);
    }
  }
  for (int i = 0; i < 8; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
  }
}

}  // namespace
