// The hot loops of the CPU backend as pure functions over raw pointers: one table an instruction set, one file an
// operation and instruction set. Instruction-set files take plain pointers and ints and instantiate no shared inline
// code.
#pragma once
#include <stdint.h>

#include "../../backend.h"

/// Rows [row_begin, row_end) of y = W x for n tokens; x rows are ldx floats apart, y[t * ldy + row].
typedef void (*SpMatmulRows)(const SpMatrix* w, const float* x, int64_t ldx, int32_t n, int32_t row_begin,
                             int32_t row_end, float* y, int64_t ldy);

/// scores[s] = sum_j w[j] relu(q[j] . keys[s]) for `count` keys of one page. q (heads, dim), keys (count, dim).
typedef void (*SpIndexScores)(const float* q, const float* w, int32_t heads, int32_t dim, const float* keys,
                              int32_t count, float* scores);

typedef struct SpAttendHead {
  const float* q_latent;  // (latent)
  const float* q_rope;    // (rope)
  const int32_t* chosen;  // (count) positions, or null for 0 .. count - 1
  const int32_t* table;   // page numbers of the sequence
  int32_t count;
  float scale;
  float* scratch;  // (count)
  float* z;        // (latent)
} SpAttendHead;

/// One token, one head: softmax over the chosen rows, weighted sum of their latents.
typedef void (*SpAttend)(const SpAttendHead* a, const SpPages* pages);

typedef struct SpKernels {
  const char* isa;
  SpMatmulRows matmul_rows;
  SpIndexScores index_scores;
  SpAttend attend_head;
} SpKernels;

extern const SpKernels sp_kernels_scalar;
extern const SpKernels sp_kernels_avx2;
extern const SpKernels sp_kernels_avx512;
