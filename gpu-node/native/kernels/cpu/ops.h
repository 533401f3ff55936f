// Declarations of every kernel, by operation and instruction set.
#pragma once
#include "kernels.h"

#define SP_DECLARE(isa)                                                                                               \
  void sp_matmul_##isa(const SpMatrix* w, const float* x, int64_t ldx, int32_t n, int32_t row_begin, int32_t row_end, \
                       float* y, int64_t ldy);                                                                        \
  void sp_index_##isa(const float* q, const float* w, int32_t heads, int32_t dim, const float* keys, int32_t count,   \
                      float* scores);                                                                                 \
  void sp_attend_##isa(const SpAttendHead* a, const SpPages* pages);

SP_DECLARE(scalar)
SP_DECLARE(avx2)
SP_DECLARE(avx512)
#undef SP_DECLARE
