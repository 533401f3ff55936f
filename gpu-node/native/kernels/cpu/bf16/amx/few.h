// Up to three tokens times a panel of packed BF16 weights, bit for bit as tiles do it.
#pragma once
#include "../kernels.h"

#define SP_FEW 3

/// Blocks `stride` bytes apart, `pairs` of columns each; tokens `ld` halves apart.
struct SpFew {
  const uint8_t* weights;
  int64_t stride;
  int64_t pairs;
  const uint16_t* tokens;
  int64_t ld;
};

/// y[t * ldy + b * step + i], of which `rows` are left from the first block on.
void sp_multiply_few(const SpFew& f, int32_t n, int32_t blocks, float* y, int64_t ldy, int64_t step, int64_t rows);
