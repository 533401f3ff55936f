// What AMX does better than AVX-512: what kernels.h says of sp_NAME holds for sp_NAME_amx. The rest of the table is
// AVX-512's.
#pragma once
#include "../kernels.h"

extern decltype(sp_gemm_bf16) sp_gemm_bf16_amx;
extern decltype(sp_attend_chunk) sp_attend_chunk_amx;
extern decltype(sp_index_page) sp_index_page_amx;
extern decltype(sp_limit_bf16) sp_limit_bf16_amx;
