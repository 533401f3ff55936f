// The scalar twin of the matrix product: the oracle of the vector versions, and what runs on any processor.
#include "../../backend/decode.h"
#include "ops.h"

namespace {

/// Sum over one 128-column block in fp32; FP8 block sums are scaled once.
float row_dot(const SpMatrix& w, int64_t row, const float* x) {
  const int64_t blocks = (w.cols + SP_SCALE_BLOCK - 1) / SP_SCALE_BLOCK;
  float total = 0;
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t end = b + 1 < blocks ? (b + 1) * SP_SCALE_BLOCK : w.cols;
    float sum = 0;
    for (int64_t k = b * SP_SCALE_BLOCK; k < end; k++) {
      const int64_t at = row * w.cols + k;
      const float value = w.dtype == SP_BF16  ? sparrow::bf16_to_float(static_cast<const uint16_t*>(w.data)[at])
                          : w.dtype == SP_F32 ? static_cast<const float*>(w.data)[at]
                                              : sparrow::e4m3_to_float(static_cast<const uint8_t*>(w.data)[at]);
      sum += value * x[k];
    }
    total += w.dtype == SP_F8_E4M3 ? sum * w.scale[row / SP_SCALE_BLOCK * blocks + b] : sum;
  }
  return total;
}

}  // namespace

void sp_matmul_scalar(const SpMatrix* w, const float* x, int64_t ldx, int32_t n, int32_t row_begin, int32_t row_end,
                      float* y, int64_t ldy) {
  for (int64_t row = row_begin; row < row_end; row++) {
    for (int64_t t = 0; t < n; t++) y[t * ldy + row] = row_dot(*w, row, x + t * ldx);
  }
}
