// The BF16 backend's kernels for AVX2 with FMA: what kernels.h says of sp_NAME holds for sp_NAME_avx2. There are no
// BF16 instructions: BF16 is widened to fp32, which is exact, and products add up in fp32 one column after the other.
#pragma once
#include "../kernels.h"

extern decltype(sp_gemm_bf16) sp_gemm_bf16_avx2;
extern decltype(sp_gemm_codes) sp_gemm_codes_avx2;
extern decltype(sp_quantize_row) sp_quantize_row_avx2;
extern decltype(sp_to_bf16) sp_to_bf16_avx2;
extern decltype(sp_from_bf16) sp_from_bf16_avx2;
extern decltype(sp_rms_norm_row) sp_rms_norm_row_avx2;
extern decltype(sp_layer_norm_row) sp_layer_norm_row_avx2;
extern decltype(sp_swiglu_row) sp_swiglu_row_avx2;
extern decltype(sp_add_rows) sp_add_rows_avx2;
extern decltype(sp_store_row) sp_store_row_avx2;
extern decltype(sp_load_fp8_row) sp_load_fp8_row_avx2;
extern decltype(sp_pack_query) sp_pack_query_avx2;
extern decltype(sp_attend_chunk) sp_attend_chunk_avx2;
extern decltype(sp_attend_merge) sp_attend_merge_avx2;
extern decltype(sp_attend_finish) sp_attend_finish_avx2;
extern decltype(sp_pack_query) sp_pack_keys_avx2;
extern decltype(sp_pack_values) sp_pack_values_avx2;
extern decltype(sp_masked_softmax) sp_masked_softmax_avx2;
extern decltype(sp_divide_row) sp_divide_row_avx2;
extern decltype(sp_quantize_index_query) sp_quantize_index_query_avx2;
extern decltype(sp_store_index_key) sp_store_index_key_avx2;
extern decltype(sp_index_page) sp_index_page_avx2;
extern decltype(sp_order_keys) sp_order_keys_avx2;
extern decltype(sp_append_above) sp_append_above_avx2;
extern decltype(sp_cut) sp_cut_avx2;
extern decltype(sp_keep_from) sp_keep_from_avx2;
extern decltype(sp_limit_read) sp_limit_read_avx2;
extern decltype(sp_limit_bf16) sp_limit_bf16_avx2;
