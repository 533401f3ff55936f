// Kernels of the BF16 backend. Those named here are for AVX-512 with BF16, VNNI and VBMI (Zen 4, Sapphire Rapids and
// later); avx2/ has the same for AVX2 with FMA, amx/ what Sapphire Rapids and later do by tiles, and the backend calls
// them through a table. Pure functions over raw
// pointers. Every (row, token), (query, key) and (head, chunk) has one accumulator and one order of additions, so a
// token's result is the same in any batch.
#pragma once
#include <stdint.h>

#include "../../../backend.h"

#define SP_LANES 16        // rows of a packed block, heads of a packed query
#define SP_PANEL_BLOCKS 4  // row blocks of a panel
#define SP_TILE_TOKENS 6   // tokens of one pass over a panel's weights
#define SP_FEW_TOKENS 3    // with no more, AVX-512 waits for a panel's weights rather than for its own products
#define SP_STRETCH 32      // columns of int8 activations that share a multiplier
#define SP_CHUNK_KEYS 128  // keys of one softmax chunk: the unit in which threads share a query
#define SP_QUERY_HEADS 16

/// A packed weight: row blocks of 16. BF16: (pairs, 16, 2), where a pair is two columns; odd columns end in a zero.
/// int8, int4 and FP8 (as int8): units of two groups of columns, each a line with their multipliers (2, 16) as BF16,
/// then (quads, 16, 4) unsigned codes of four columns, int4 with two quads to a line, padded to whole stretches.
/// `exact` F32 blocks are (cols, 16). Row block b starts at data + b * block_bytes.
typedef struct SpPacked {
  const uint8_t* data;
  int64_t block_bytes;
  int32_t dtype, pairs, cols, exact;
  int32_t group;          // columns of one multiplier, a multiple of SP_STRETCH
  int32_t subnormal = 0;  // `exact` BF16 with subnormal numbers, which instructions for BF16 take for zeros
} SpPacked;

/// int8 activations: x ~ scale * code over each stretch of 32 columns, `sum` of its codes beside it.
typedef struct SpCodes {
  const int8_t* codes;  // (n, ld), ld a multiple of 32, padded with zeros
  const float* scales;  // (n, ld / 32)
  const int32_t* sums;  // (n, ld / 32)
  int64_t ld;
  int32_t n;
} SpCodes;

/// Activations of a product: BF16 pairs and the fp32 they came from. Without `half` the product is of the latter.
typedef struct SpInput {
  const uint16_t* half;  // (n, ld_half), ld_half even, padded with zeros
  const float* full;     // (n, ld_full)
  int64_t ld_half, ld_full;
  int32_t n;
  const int32_t* at;                // rows of `full`, or null: 0, 1, ...; of `half` never
  const uint16_t* parts = nullptr;  // (3, n, ld_half) BF16 that add up to `full`, where the kernels have split_row
} SpInput;

/// Row blocks begin, begin + step, ..., `count` of them, that share one pass over the activations. `rows` are left from
/// the first of them on: no more are written.
typedef struct SpPanel {
  int32_t begin, step, count, rows;
  int64_t next;  // bytes from here to the panel of the same shape that is likely to follow, for prefetching; 0: none
} SpPanel;

/// y[t * ldy + i], where y is the first block's first row.
void sp_gemm_bf16(const SpPacked* w, const SpPanel* panel, const SpInput* x, float* y, int64_t ldy);

/// The same for quantised weights.
void sp_gemm_codes(const SpPacked* w, const SpPanel* panel, const SpCodes* x, float* y, int64_t ldy);
/// One row of SpCodes.
void sp_quantize_row(const float* x, int64_t cols, int8_t* codes, float* scales, int32_t* sums);

/// x (count) to BF16, rounded to nearest even; zeros up to `padded`.
void sp_to_bf16(const float* x, int64_t count, int64_t padded, uint16_t* y);

/// RMSNorm, LayerNorm of one row; `x` may be `y`.
void sp_rms_norm_row(const float* x, const float* gain, int32_t dim, float eps, float* y);
void sp_layer_norm_row(const float* x, const float* gain, const float* bias, int32_t dim, float eps, float* y);
/// gate = silu(gate) * up.
void sp_swiglu_row(float* gate, const float* up, int64_t count);
/// y (dim) += sum over `count` rows of weight * row, row after row.
void sp_add_rows(const float* const* rows, const float* weights, int32_t count, int64_t dim, float* y);
void sp_from_bf16(const uint16_t* x, int64_t count, float* y);

/// A KV page: 64 rows of latent|rope, and elsewhere index keys as 4 groups of 16 keys (dim/4, 16, 4) uint8 offset by
/// 128, then their 64 scales. A row is BF16, or with `fp8` E4M3 latents, an fp32 multiplier for each 128 of them, BF16
/// rope part.
typedef struct SpLayout {
  int32_t latent, rope, index, fp8;
  int64_t row_bytes;
  int64_t row_halves;   // of a row as BF16: a multiple of 32, >= latent + rope
  int64_t index_quads;  // ceil(index / 4)
  int64_t scales_at;    // in a page's index keys
} SpLayout;

typedef struct SpKvView {
  SpLayout layout;
  const uint8_t* base;
  int64_t page_stride;
} SpKvView;

/// Keys of a sequence at `chosen` positions, or null: first, first + 1, ...
typedef struct SpKeys {
  const int32_t* table;  // the sequence's pages
  const int32_t* chosen;
  int32_t first, count;
} SpKeys;
static inline const uint8_t* sp_key_row(const SpKvView* kv, const SpKeys& keys, int64_t i) {
  const int64_t at = keys.chosen ? keys.chosen[i] : keys.first + i;
  return kv->base + kv->page_stride * keys.table[at / SP_PAGE_TOKENS] + at % SP_PAGE_TOKENS * kv->layout.row_bytes;
}

/// One query's group of up to 16 heads over up to SP_CHUNK_KEYS keys.
typedef struct SpChunk {
  const uint16_t* query;  // from sp_pack_query
  SpKeys keys;
  int32_t heads;
  float scale;
  bool again;   // the scratch memory still holds this chunk's rows: for other heads, or a query of more keys, was it
                // before
  SpKeys next;  // what may be asked for while this chunk is worked on; count 0: nothing
} SpChunk;

/// Softmax state of a group: running maximum and sum of exponentials (16), weighted latents (heads, latent).
typedef struct SpSoftmax {
  float top[SP_LANES], total[SP_LANES];
  float* z;
} SpSoftmax;

/// Writes one row of a page; reads it as BF16 (row_halves) where it is FP8.
void sp_store_row(const SpLayout* layout, const float* latent, const float* rope, uint8_t* row);
void sp_load_fp8_row(const SpLayout* layout, const uint8_t* row, uint16_t* half);
/// q_latent (heads, latent) and q_rope (heads, rope) -> the packed query: (row_halves / 2, 16, 2), or as AVX2 reads it
/// (row_halves, 16) floats.
void sp_pack_query(const SpLayout* layout, const float* q_latent, const float* q_rope, int32_t heads, uint16_t* query);
/// Halves of scratch memory for one chunk, aligned to 64 bytes: rows of BF16 (SP_CHUNK_KEYS, row_halves + 32), and for
/// AMX as much again for the latents in another order, and sums.
static inline int64_t sp_attend_room(const SpLayout* l) {
  return (2 * SP_CHUNK_KEYS + 32) * (l->row_halves + 32);
}
/// The state of one chunk alone.
void sp_attend_chunk(const SpChunk* chunk, const SpKvView* kv, uint16_t* wide, SpSoftmax* out);
/// into = into then `next`, always in this order of arithmetic.
void sp_attend_merge(const SpSoftmax* next, int32_t heads, int32_t latent, SpSoftmax* into);
/// z / total.
void sp_attend_finish(const SpSoftmax* state, int32_t heads, int32_t latent, float* z);

/// Values of `keys` keys (keys, ld), `dims` columns each, as a packed weight of rows = dims and columns = keys: key 2p
/// and 2p + 1 of block b stand at to + b * block_halves + p * 32. An odd last key gets a zero partner.
void sp_pack_values(const float* values, int64_t ld, int32_t keys, int32_t dims, int64_t block_halves, uint16_t* to);
/// One row of masked softmax over 16 * blocks scores, a mask for every 16: weights as BF16, not divided by their sum,
/// which is returned. Blocks past `own` are zeros, and change nothing.
float sp_masked_softmax(const float* scores, const uint16_t* masks, int32_t own, int32_t blocks, float scale,
                        uint16_t* weights);
/// y (dims) = y / total; never -0, so that further keys of weight zero cannot change a bit.
void sp_divide_row(float* y, int32_t dims, float total);

/// An index query: int8 heads, w times the head's scale, and -128 * sum(q) that undoes the keys' offset.
typedef struct SpIndexHeads {
  int8_t* q;       // (heads, quads * 4)
  float* w;        // (heads)
  int32_t* start;  // (heads)
  int32_t heads;
} SpIndexHeads;

void sp_quantize_index_query(const float* q, const float* w, int32_t dim, int64_t quads, SpIndexHeads* out);
/// Quantises a key to scale * (code - 128) and stores it as position `at` of a page's keys.
void sp_store_index_key(const SpLayout* layout, const float* key, int64_t at, uint8_t* keys);
/// Scores of a page's keys: scores (64). `next`: the keys that are scored after them, to be fetched, or null.
void sp_index_page(const SpIndexHeads* query, const SpLayout* layout, const uint8_t* keys, const uint8_t* next,
                   float* scores);

/// Top-k works on keys: integers in the order of their scores, -0 equal to 0, NaN equal to minus infinity.
#define SP_KEY_NAN (-2139095041)
void sp_order_keys(const float* scores, int32_t count, int32_t* keys);
/// Appends the keys above `floor` and their positions, in order; returns how many. Buffers need `count` free places,
/// padded to 16.
int32_t sp_append_above(const int32_t* keys, int32_t count, int32_t floor, int32_t first, int32_t* out,
                        int32_t* positions);
/// A key such that `kept` keys are at least it, and k <= kept <= k + slack unless ties forbid. count >= k.
int32_t sp_cut(const int32_t* keys, int32_t count, int32_t k, int32_t slack, int32_t* kept);
/// Keeps, in order, the keys above `cut` and the first `ties` equal to it; returns how many.
int32_t sp_keep_from(int32_t* keys, int32_t* positions, int32_t count, int32_t cut, int32_t ties);

/// For the bench: reads `bytes` (a multiple of 512); `steps` times 12 independent products of 16 x 2 values.
int64_t sp_limit_read(const uint8_t* from, int64_t bytes);
float sp_limit_bf16(int64_t steps);
#define SP_LIMIT_FLOPS (12 * 64)

/// One instruction set's kernels, each with the type and meaning of the function above.
typedef struct SpBf16Kernels {
  const char* isa;
  bool rounds;  // activations become BF16 before a product; else they stay fp32
  decltype(&sp_gemm_bf16) gemm_bf16;
  decltype(&sp_gemm_codes) gemm_codes;
  decltype(&sp_quantize_row) quantize_row;
  decltype(&sp_to_bf16) to_bf16;
  decltype(&sp_from_bf16) from_bf16;
  decltype(&sp_rms_norm_row) rms_norm_row;
  decltype(&sp_layer_norm_row) layer_norm_row;
  decltype(&sp_swiglu_row) swiglu_row;
  decltype(&sp_add_rows) add_rows;
  decltype(&sp_store_row) store_row;
  decltype(&sp_load_fp8_row) load_fp8_row;
  decltype(&sp_pack_query) pack_query;
  decltype(&sp_attend_chunk) attend_chunk;
  decltype(&sp_attend_merge) attend_merge;
  decltype(&sp_attend_finish) attend_finish;
  decltype(&sp_pack_query) pack_keys;  // the packed weight (pairs, 16, 2) whose rows are up to 16 keys
  decltype(&sp_pack_values) pack_values;
  decltype(&sp_masked_softmax) masked_softmax;
  decltype(&sp_divide_row) divide_row;
  decltype(&sp_quantize_index_query) quantize_index_query;
  decltype(&sp_store_index_key) store_index_key;
  decltype(&sp_index_page) index_page;
  decltype(&sp_order_keys) order_keys;
  decltype(&sp_append_above) append_above;
  decltype(&sp_cut) cut;
  decltype(&sp_keep_from) keep_from;
  decltype(&sp_limit_read) limit_read;
  decltype(&sp_limit_bf16) limit_bf16;
  /// x (count) as three BF16 each that add up to it: y, y + apart, y + 2 apart, zeros up to `padded`. Null: products of
  /// exact weights take fp32.
  void (*split_row)(const float* x, int64_t count, int64_t padded, int64_t apart, uint16_t* y) = nullptr;
} SpBf16Kernels;

extern const SpBf16Kernels sp_bf16_amx, sp_bf16_avx512, sp_bf16_avx2;
