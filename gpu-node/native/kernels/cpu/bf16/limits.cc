// Loops that do nothing but load, and nothing but multiply: what the machine's ceilings are measured with.
#include <immintrin.h>

#include "kernels.h"

int64_t sp_limit_read(const uint8_t* from, int64_t bytes) {
  __m512i sum[8];
  for (int i = 0; i < 8; i++) sum[i] = _mm512_setzero_si512();
  const int64_t stream = bytes / 4;  // four at once, as a panel has row blocks: a tenth faster than one
  for (int64_t at = 0; at < stream; at += 128) {
    for (int i = 0; i < 8; i++)
      sum[i] = _mm512_xor_si512(sum[i], _mm512_load_si512(from + i / 2 * stream + at + i % 2 * 64));
  }
  for (int i = 1; i < 8; i++) sum[0] = _mm512_xor_si512(sum[0], sum[i]);
  return _mm512_reduce_add_epi64(sum[0]);
}

float sp_limit_bf16(int64_t steps) {
  __m512 sum[12];
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3F803F80);
  for (int i = 0; i < 12; i++) sum[i] = _mm512_setzero_ps();
  for (int64_t k = 0; k < steps; k++) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) sum[i] = _mm512_dpbf16_ps(sum[i], x, x);
  }
  for (int i = 1; i < 12; i++) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return _mm512_reduce_add_ps(sum[0]);
}
