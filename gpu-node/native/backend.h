// The contract between the model and whatever computes it: a C table of operations over raw pointers. A backend knows
// no model, no sequence and no Node; the model knows no instruction set. Activations and cache rows are fp32,
// row-major; what stands in a KV page, and how a packed weight lies, is the backend's own. Result of one token never
// depends on the other tokens of a call (fixed order of summation), so batching, chunking and cached prefixes cannot
// change an answer. To add a backend: fill this table, add its line in
// backend/registry.cc.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SP_BACKEND_ABI 6
#define SP_PAGE_TOKENS 64
#define SP_SCALE_BLOCK 128

typedef enum SpDType { SP_F32 = 0, SP_BF16 = 1, SP_F8_E4M3 = 2, SP_I8 = 3, SP_I4 = 4 } SpDType;

/// A weight W of y = W x. Quantised rows carry multipliers: FP8 one for each 128x128 block (weight_scale_inv), int8 and
/// int4 one for each row and `group` columns.
typedef struct SpMatrix {
  const void* data;    // (rows, cols) of dtype; int4: (rows, ceil(cols/2)), even column in the low bits, 8 is zero
  const float* scale;  // FP8 (ceil(rows/128), ceil(cols/128)); int8, int4 (rows, ceil(cols/group)); else null
  int32_t dtype, rows, cols;
  int32_t exact;  // 1: activations are never rounded (gate, index weights, fp32 heads): their outputs decide. F32, BF16
                  // only
  int32_t heads;  // W is `heads` matrices one below the other (for matmul_heads); 1 otherwise
  int32_t group;  // columns of one multiplier; 128 for FP8, 0 without scale
  int32_t narrow;      // 1: F32 or BF16 beside quantised weights: a backend may keep it in as few bits as int8
  const void* packed;  // what the backend's `pack` wrote, null when it has none
} SpMatrix;

/// One of several products of the same activations.
typedef struct SpProduct {
  const SpMatrix* w;
  float* y;  // (n, w->rows)
} SpProduct;

/// The cache of one layer: 64 positions a page. A position has a row (latent, rope part) and an index key (index may be
/// 0). A query reads some rows and all keys, so the keys of all pages lie together, apart from the rows.
typedef struct SpPages {
  uint8_t* base;        // rows
  int64_t page_stride;  // bytes from one page's rows to the next one's
  uint8_t* keys;
  int64_t key_stride;
  int32_t latent, rope, index;
} SpPages;

/// n tokens of any sequences: token t stands at positions[t] of the sequence whose pages are tables[t].
typedef struct SpTokens {
  int32_t n;
  const int32_t* positions;      // (n)
  const int32_t* const* tables;  // (n) -> (ceil((positions[t] + 1) / 64)) page numbers
} SpTokens;

typedef struct SpGate {
  const float* bias;  // (experts) e_score_correction_bias: chooses, never weighs; null when absent
  int32_t experts, top_k, groups, top_groups;
  int32_t sigmoid;        // 1: sigmoid scores, 0: softmax
  int32_t group_by_top2;  // 1: a group's score is the sum of its two largest, 0: its largest
  int32_t normalize;      // divide the chosen weights by their sum
  float factor;           // routed_scaling_factor
} SpGate;

typedef struct SpExperts {
  const SpMatrix *gate, *up, *down;  // (experts) each; gate and up (inter, hidden), down (hidden, inter)
  int32_t experts, top_k;
} SpExperts;

typedef struct SpIndexQuery {
  const float* q;  // (n, heads, dim), rotated
  const float* w;  // (n, heads), scaled by heads^-0.5 * dim^-0.5
  int32_t heads, dim, top_k;
} SpIndexQuery;

typedef struct SpAttention {
  const float* q_latent;  // (n, heads, latent): absorbed nope part
  const float* q_rope;    // (n, heads, rope)
  const int32_t* chosen;  // (n, top_k) ascending positions, or null: every position up to the token's own
  const int32_t* counts;  // (n) valid entries of `chosen`
  int32_t heads, top_k;
  float scale;
} SpAttention;

/// Attention over keys and values that are made from the latents first (W_UK, W_UV), for many tokens of one sequence.
typedef struct SpExpanded {
  const float* q;         // (n, heads, nope + rope), rope part rotated
  const SpMatrix* uk;     // (heads * nope, latent)
  const SpMatrix* uv;     // (heads * v, latent)
  const int32_t* chosen;  // as in SpAttention: these positions alone count
  const int32_t* counts;
  int32_t heads, nope, v, top_k;
  float scale;
} SpExpanded;

typedef struct SpBackend {
  int32_t abi;
  const char* name;
  const char* isa;
  void* self;

  /// Bytes of a page's rows in one layer, and of its index keys (0 for index 0): multiples of 64.
  int64_t (*row_bytes)(void* self, int32_t latent, int32_t rope);
  int64_t (*key_bytes)(void* self, int32_t index);
  /// Bytes of the packed form of `w` (0: used as it is); writes it when `to` (64-byte aligned) is not null.
  int64_t (*pack)(void* self, const SpMatrix* w, void* to);
  /// y (n, cols) = rows `ids` of the embedding.
  void (*embed)(void* self, const SpMatrix* table, const int32_t* ids, int32_t n, float* y);
  /// y = gain * x * rsqrt(mean(x^2) + eps); rows of `dim`, ldx and ldy floats apart.
  void (*rms_norm)(void* self, const float* x, int64_t ldx, const float* gain, int32_t n, int32_t dim, float eps,
                   float* y, int64_t ldy);
  /// y = gain * (x - mean) * rsqrt(var + eps) + bias, population variance.
  void (*layer_norm)(void* self, const float* x, const float* gain, const float* bias, int32_t n, int32_t dim,
                     float eps, float* y);
  /// y (n, rows) = x (n, cols) W^T, for `count` weights of equal cols.
  void (*matmul)(void* self, const SpProduct* products, int32_t count, const float* x, int32_t n);
  /// y (n, heads, rows/heads) = per head W[h] x[:, h]; x (n, heads, cols) with ldx floats a token and ldh a head.
  void (*matmul_heads)(void* self, const SpMatrix* w, const float* x, int64_t ldx, int64_t ldh, int32_t n, float* y);
  /// Rotates `dim` values in place. table (positions, dim) holds dim/2 cosines, then dim/2 sines. Pairs are (2i, 2i+1),
  /// or (i, i + dim/2) when half_split.
  void (*rope)(void* self, float* x, const int32_t* positions, int32_t n, int32_t heads, int64_t ld_token,
               int64_t ld_head, int32_t dim, const float* table, int32_t half_split);
  /// x += y.
  void (*add)(void* self, float* x, const float* y, int64_t count);
  /// gate = silu(gate) * up.
  void (*swiglu)(void* self, float* gate, const float* up, int64_t count);
  /// logits (n, experts) -> ids, weights (n, top_k). Ties: lower group, then lower expert.
  void (*gate)(void* self, const SpGate* gate, const float* logits, int32_t n, int32_t* ids, float* weights);
  /// y (n, hidden) += sum over top_k of weight * expert(x), in ascending slot order.
  void (*experts)(void* self, const SpExperts* e, const float* x, const int32_t* ids, const float* weights, int32_t n,
                  float* y);
  /// Writes each token's latent (n, latent), rope (n, rope) and index key (n, index; null when index is 0) to its page.
  void (*cache_write)(void* self, const SpPages* pages, const SpTokens* tokens, const float* latent, const float* rope,
                      const float* index);
  /// I[t,s] = sum_j w[t,j] relu(q[t,j] . k[s]) for s <= t; chosen (n, top_k) = ascending positions of the min(top_k,
  /// t+1) largest (higher score first, then lower position), counts (n). scores (n, ld_scores) receives I when not
  /// null.
  void (*index_select)(void* self, const SpIndexQuery* query, const SpPages* pages, const SpTokens* tokens,
                       int32_t* chosen, int32_t* counts, float* scores, int64_t ld_scores);
  /// z (n, heads, latent) = softmax over the chosen s of scale * (q_latent . latent[s] + q_rope . rope[s]), times
  /// latent[s].
  void (*attend)(void* self, const SpAttention* a, const SpPages* pages, const SpTokens* tokens, float* z);
  /// heads_out (n, heads, v) = softmax over the chosen s of scale * q . (UK latent[s] | rope[s]), times UV latent[s]:
  /// UV attend() by other roundings. All tokens are of one sequence. Null in a backend that has no such form.
  void (*attend_expanded)(void* self, const SpExpanded* a, const SpPages* pages, const SpTokens* tokens,
                          float* heads_out);
  /// Runs body(context, i) for every i in [0, items) on the host's threads that the backend computes with, and returns
  /// when all are done. Null in a backend that has none.
  void (*each)(void* self, int64_t items, void (*body)(const void* context, int64_t i), const void* context);
} SpBackend;

#ifdef __cplusplus
}
#endif
