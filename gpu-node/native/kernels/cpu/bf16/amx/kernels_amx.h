// What AMX does better than AVX-512: what kernels.h says of sp_NAME holds for sp_NAME_amx. The rest of the table is
// AVX-512's.
#pragma once
#include "../kernels.h"

extern decltype(sp_gemm_bf16) sp_gemm_bf16_amx;
/// x (count) as three BF16 each that add up to it: y, y + apart, y + 2 apart; zeros up to `padded`.
void sp_split_row_amx(const float* x, int64_t count, int64_t padded, int64_t apart, uint16_t* y);
extern decltype(sp_attend_chunk) sp_attend_chunk_amx;
extern decltype(sp_index_page) sp_index_page_amx;
extern decltype(sp_limit_bf16) sp_limit_bf16_amx;
