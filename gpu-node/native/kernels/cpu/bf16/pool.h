// What the operations of the BF16 backend share: the threads, and scratch memory that grows and stays.
#pragma once
#include <cstdint>
#include <vector>

#include "../threads.h"
#include "kernels.h"

namespace sparrow::bf16 {

struct Pool {
  explicit Pool(int threads) : threads(threads) {}
  Threads threads;
  std::vector<uint16_t> half;                    // activations of the current product
  std::vector<uint16_t> expert_x, expert_inner;  // (slots, hidden), (slots, inter), grouped by expert
  std::vector<float> expert_out;                 // (slots, hidden)
};

inline Pool& pool(void* self) {
  return *static_cast<Pool*>(self);
}

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// Halves of a padded row: pairs, aligned to 64 bytes and never a power of two apart (rows would share cache sets).
inline int64_t padded(int64_t cols) {
  return ceil_div(cols, 32) * 32 + 32;
}

/// Rows of fp32 to rows of BF16, over the threads when there are many.
void round_rows(Pool& p, const float* x, int64_t ldx, int64_t rows, int64_t cols, uint16_t* half);

SpPacked view(const SpMatrix& w);
int64_t head_blocks(const SpMatrix& w);  // row blocks of one head

// Operations of the table.
int64_t pack(void* self, const SpMatrix* w, void* to);
void matmul(void* self, const SpProduct* products, int32_t count, const float* x, int32_t n);
void matmul_heads(void* self, const SpMatrix* w, const float* x, int64_t ldx, int64_t ldh, int32_t n, float* y);
void experts(void* self, const SpExperts* e, const float* x, const int32_t* ids, const float* weights, int32_t n,
             float* y);
int64_t page_bytes(void* self, int32_t latent, int32_t rope, int32_t index);
void cache_write(void* self, const SpPages* pages, const SpTokens* tokens, const float* latent, const float* rope,
                 const float* index);
void index_select(void* self, const SpIndexQuery* query, const SpPages* pages, const SpTokens* tokens, int32_t* chosen,
                  int32_t* counts, float* scores, int64_t ld_scores);
void attend(void* self, const SpAttention* a, const SpPages* pages, const SpTokens* tokens, float* z);

SpLayout layout_of(int32_t latent, int32_t rope, int32_t index);

}  // namespace sparrow::bf16
