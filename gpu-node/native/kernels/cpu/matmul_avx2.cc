// Matrix product for avx2: 8 lanes, tiles of 2 rows by 4 tokens (as many accumulators as the registers hold).
#define SP_WIDTH 8
#define SP_TILE_ROWS 2
#include "matmul_body.h"

void sp_matmul_avx2(const SpMatrix* w, const float* x, int64_t ldx, int32_t n, int32_t row_begin, int32_t row_end,
                    float* y, int64_t ldy) {
  matmul_any(w, x, ldx, n, row_begin, row_end, y, ldy);
}
