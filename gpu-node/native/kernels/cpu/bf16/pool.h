// What the operations of the BF16 backend share: the threads, and scratch memory that grows and stays.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../../lines.h"
#include "../threads.h"
#include "kernels.h"

namespace sparrow::bf16 {

/// Memory that grows and stays.
template <class T>
struct Room {
  Lines<T> memory;
  T* ready(int64_t size) {
    if (memory.size() < static_cast<size_t>(size)) memory.resize(static_cast<size_t>(size));
    return memory.data();
  }
};

/// Rows of int8 activations, in memory that grows and stays.
struct CodeRows {
  Lines<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  int64_t ld = 0;
  void resize(int64_t rows, int64_t cols);
  /// `cols` values of a row from column `at`, a multiple of SP_STRETCH.
  void set(const SpBf16Kernels& k, int64_t row, const float* x, int64_t cols, int64_t at);
  void copy(int64_t row, const CodeRows& from, int64_t from_row);
  SpCodes view(int64_t row, int32_t n) const;
};

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// Columns rounded up to whole stretches.
inline int64_t stretched(int64_t cols) {
  return ceil_div(cols, SP_STRETCH) * SP_STRETCH;
}

/// What a weight's kernel reads: fp32, BF16 or int8 activations.
enum class InputKind { kFull, kHalf, kCodes };
InputKind input_kind(const SpMatrix& w);
struct Inputs {
  SpInput plain;
  SpCodes codes;
};

/// Halves of a padded row: pairs, aligned to 64 bytes and never a power of two apart (rows would share cache sets).
inline int64_t padded(int64_t cols) {
  return ceil_div(cols, 32) * 32 + 32;
}

SpPacked view(const SpMatrix& w);

/// So many tokens that a product waits for its results rather than for weights.
inline bool are_many(int64_t tokens) {
  return tokens > SP_LANES;
}

/// A weight as its products need it, worked out once a call.
struct Tiles {
  explicit Tiles(const SpMatrix& w);
  SpPacked packed;
  InputKind kind;
  int64_t blocks, rows, panels;  // of one head
  int64_t heads;

  /// Every `panels`-th row block, so that the panels a thread takes one after another continue four streams of memory;
  /// `together`: neighbouring blocks, whose results lie together.
  SpPanel panel(int64_t index, bool together) const;
  /// Small panels go several at a time, for an item costs some of its own: as many as make 32 KiB.
  int64_t panels_an_item() const { return std::max<int64_t>(1, (32 << 10) / (SP_PANEL_BLOCKS * packed.block_bytes)); }
  /// A panel of head h times the inputs of its kind: y is the head's first row.
  void multiply(const SpBf16Kernels& k, int64_t h, const SpPanel& panel, const Inputs& x, float* y, int64_t ldy) const {
    multiply(k, packed.data + h * blocks * packed.block_bytes, panel, x, y, ldy);
  }
  /// The same of a weight of this shape that is packed elsewhere.
  void multiply(const SpBf16Kernels& k, const void* data, const SpPanel& panel, const Inputs& x, float* y,
                int64_t ldy) const;
};

struct Pool {
  Pool(const SpBf16Kernels& kernels, int threads, bool fp8_kv) : k(kernels), threads(threads), fp8_kv(fp8_kv) {}
  const SpBf16Kernels& k;
  Threads threads;
  const bool fp8_kv;                          // KV pages keep latents as E4M3
  Lines<uint16_t> half;                       // activations of the current product
  Lines<uint16_t> parts;                      // the same, each in three
  Lines<uint16_t> expert_inner;               // (slots, inter), grouped by expert
  Lines<float> full_inner;                    // the same, for kernels that do not round
  CodeRows codes, expert_codes, inner_codes;  // for quantised weights: (n, cols), (slots, hidden), (slots, inter)
  Lines<float> expert_out;                    // (slots, hidden)
  std::vector<Tiles> products;                // of the current call
};

inline Pool& pool(void* self) {
  return *static_cast<Pool*>(self);
}

/// Rows of fp32 to rows of BF16, over the threads when there are many.
void round_rows(Pool& p, const float* x, int64_t ldx, int64_t rows, int64_t cols, uint16_t* half);

// Operations of the table.
int64_t pack(void* self, const SpMatrix* w, void* to);
void matmul(void* self, const SpProduct* products, int32_t count, const float* x, int32_t n);
void matmul_heads(void* self, const SpMatrix* w, const float* x, int64_t ldx, int64_t ldh, int32_t n, float* y);
void experts(void* self, const SpExperts* e, const float* x, const int32_t* ids, const float* weights, int32_t n,
             float* y);
int64_t row_bytes(void* self, int32_t latent, int32_t rope);
int64_t key_bytes(void* self, int32_t index);
void cache_write(void* self, const SpPages* pages, const SpTokens* tokens, const float* latent, const float* rope,
                 const float* index);
void index_select(void* self, const SpIndexQuery* query, const SpPages* pages, const SpTokens* tokens, int32_t* chosen,
                  int32_t* counts, float* scores, int64_t ld_scores);
void attend(void* self, const SpAttention* a, const SpPages* pages, const SpTokens* tokens, float* z);
void attend_expanded(void* self, const SpExpanded* a, const SpPages* pages, const SpTokens* tokens, float* heads_out);

SpLayout layout_of(const Pool& p, int32_t latent, int32_t rope, int32_t index);

}  // namespace sparrow::bf16
