// One line a kernel: the tables of the instruction sets.
#include "amx/kernels_amx.h"
#include "avx2/kernels_avx2.h"
#include "kernels.h"

const SpBf16Kernels sp_bf16_avx512 = {"avx512bf16",
                                      true,
                                      sp_gemm_bf16,
                                      sp_gemm_codes,
                                      sp_quantize_row,
                                      sp_to_bf16,
                                      sp_from_bf16,
                                      sp_rms_norm_row,
                                      sp_layer_norm_row,
                                      sp_swiglu_row,
                                      sp_add_rows,
                                      sp_store_row,
                                      sp_load_fp8_row,
                                      sp_pack_query,
                                      sp_attend_chunk,
                                      sp_attend_merge,
                                      sp_attend_finish,
                                      sp_pack_query,
                                      sp_pack_values,
                                      sp_masked_softmax,
                                      sp_divide_row,
                                      sp_quantize_index_query,
                                      sp_store_index_key,
                                      sp_index_page,
                                      sp_order_keys,
                                      sp_append_above,
                                      sp_cut,
                                      sp_keep_from,
                                      sp_limit_read,
                                      sp_limit_bf16};

constexpr SpBf16Kernels with_amx(SpBf16Kernels k) {
  k.isa = "amxbf16";
  k.gemm_bf16 = sp_gemm_bf16_amx;
  k.attend_chunk = sp_attend_chunk_amx;
  k.index_page = sp_index_page_amx;
  k.limit_bf16 = sp_limit_bf16_amx;
  k.split_row = sp_split_row_amx;
  return k;
}

constinit const SpBf16Kernels sp_bf16_amx = with_amx(sp_bf16_avx512);

const SpBf16Kernels sp_bf16_avx2 = {"avx2bf16",
                                    false,
                                    sp_gemm_bf16_avx2,
                                    sp_gemm_codes_avx2,
                                    sp_quantize_row_avx2,
                                    sp_to_bf16_avx2,
                                    sp_from_bf16_avx2,
                                    sp_rms_norm_row_avx2,
                                    sp_layer_norm_row_avx2,
                                    sp_swiglu_row_avx2,
                                    sp_add_rows_avx2,
                                    sp_store_row_avx2,
                                    sp_load_fp8_row_avx2,
                                    sp_pack_query_avx2,
                                    sp_attend_chunk_avx2,
                                    sp_attend_merge_avx2,
                                    sp_attend_finish_avx2,
                                    sp_pack_keys_avx2,
                                    sp_pack_values_avx2,
                                    sp_masked_softmax_avx2,
                                    sp_divide_row_avx2,
                                    sp_quantize_index_query_avx2,
                                    sp_store_index_key_avx2,
                                    sp_index_page_avx2,
                                    sp_order_keys_avx2,
                                    sp_append_above_avx2,
                                    sp_cut_avx2,
                                    sp_keep_from_avx2,
                                    sp_limit_read_avx2,
                                    sp_limit_bf16_avx2};
