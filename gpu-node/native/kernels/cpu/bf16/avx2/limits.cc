// Loops that do nothing but load, and nothing but multiply, on AVX2. There the ceiling of products is that of fp32.
#include "kernels_avx2.h"
#include "lanes.h"

int64_t sp_limit_read_avx2(const uint8_t* from, int64_t bytes) {
  __m256i sum[8];
  for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_si256();
  const int64_t stream = bytes / 4;  // four at once, as a panel has row blocks
  for (int64_t at = 0; at < stream; at += 64) {
    for (int i = 0; i < 8; i++)
      sum[i] = _mm256_xor_si256(sum[i], _mm256_load_si256((const __m256i*)(from + i / 2 * stream + at + i % 2 * 32)));
  }
  for (int i = 1; i < 8; i++) sum[0] = _mm256_xor_si256(sum[0], sum[i]);
  return sum_lanes(sum[0]);
}

float sp_limit_bf16_avx2(int64_t steps) {
  __m256 sum[12];
  const __m256 x = _mm256_set1_ps(1.0f);
  for (int i = 0; i < 12; i++) sum[i] = _mm256_setzero_ps();
  for (int64_t k = 0; k < 4 * steps; k++) {  // four of 16 operations make the 64 of SP_LIMIT_FLOPS
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) sum[i] = _mm256_fmadd_ps(x, x, sum[i]);
  }
  for (int i = 1; i < 12; i++) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  return sum_lanes(sum[0]);
}
