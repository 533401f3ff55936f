// Matrix product of packed BF16 weights by tiles: a packed block's 16 pairs of columns are a tile as they lie. One
// token is computed as sixteen are. `exact` weights go the way of AVX-512.
#include "../kernels.h"
#include "kernels_amx.h"
#include "tiles.h"

namespace {

constexpr int32_t kTilePairs = kTileBytes / 4;

struct Weights {
  const uint8_t* from;
  int64_t stride;  // bytes from a block of the panel to the next
  int32_t pairs;
};

struct Tokens {
  const uint8_t *first, *second;  // up to 16 rows each
  int64_t stride;
  int32_t rows;
};

struct Out {
  float *first, *second;
  int64_t ldy;
  int32_t step, rows;  // from a block of the panel to the next; left from the first block on
};

/// Sums of 16 rows, of which the last block may have fewer.
template <int C>
SP_INLINE void put(float* y, const Out& out, int32_t block, int32_t tokens) {
  const int32_t left = out.rows - block * out.step;
  y += block * out.step;
  if (left >= SP_LANES) return store_tile<C>(y, out.ldy * 4);
  alignas(64) float sums[kTileRows * SP_LANES];
  store_tile<C>(sums, kTileBytes);
  const __mmask16 mask = static_cast<__mmask16>((1u << left) - 1);
  for (int32_t t = 0; t < tokens; t++)
    _mm512_mask_storeu_ps(y + t * out.ldy, mask, _mm512_load_ps(sums + t * SP_LANES));
}

/// The k-th sixteen pairs of B blocks times one or two tiles of tokens: block b's sums are C = b, or 2 b and 2 b + 1.
template <int A, int B>
SP_INLINE void step(const Weights& w, const Tokens& x, int64_t k) {
  const uint8_t* at = w.from + k * kTileRows * kTileBytes;
  load_tile<4>(x.first + k * kTileBytes, x.stride);
  if constexpr (A == 2) load_tile<5>(x.second + k * kTileBytes, x.stride);
  load_tile<6>(at, kTileBytes);
  if constexpr (B > 1) load_tile<7>(at + w.stride, kTileBytes);
  add_bf16<0, 4, 6>();
  if constexpr (A == 2) {
    if constexpr (B > 1) add_bf16<2, 4, 7>();
    add_bf16<1, 5, 6>();
    if constexpr (B > 1) add_bf16<3, 5, 7>();
  } else {
    if constexpr (B > 1) add_bf16<1, 4, 7>();
    if constexpr (B > 2) load_tile<6>(at + 2 * w.stride, kTileBytes), add_bf16<2, 4, 6>();
    if constexpr (B > 3) load_tile<7>(at + 3 * w.stride, kTileBytes), add_bf16<3, 4, 7>();
  }
}

/// Pairs behind the last sixteen: another shape, which clears the registers.
template <int A, int B>
static void last_step(const Weights& w, const Tokens& x) {
  alignas(64) float sums[4][kTileRows * SP_LANES];
  store_tile<0>(sums[0], kTileBytes), store_tile<1>(sums[1], kTileBytes);
  store_tile<2>(sums[2], kTileBytes), store_tile<3>(sums[3], kTileBytes);
  sp_shape_tiles(x.rows, w.pairs % kTilePairs * 4);
  load_tile<0>(sums[0], kTileBytes), load_tile<1>(sums[1], kTileBytes);
  load_tile<2>(sums[2], kTileBytes), load_tile<3>(sums[3], kTileBytes);
  step<A, B>(w, x, w.pairs / kTilePairs);
}

/// B blocks by one tile of tokens (up to four blocks), or two (up to two).
template <int A, int B>
static void tile(const Weights& w, const Tokens& x, const Out& out) {
  sp_shape_tiles(x.rows, kTileBytes);
  clear_tile<0>(), clear_tile<1>(), clear_tile<2>(), clear_tile<3>();
  for (int64_t k = 0; k < w.pairs / kTilePairs; k++) step<A, B>(w, x, k);
  if (w.pairs % kTilePairs) last_step<A, B>(w, x);
  put<0>(out.first, out, 0, x.rows);
  if constexpr (A == 2) {
    put<1>(out.second, out, 0, x.rows);
    if constexpr (B > 1) put<2>(out.first, out, 1, x.rows), put<3>(out.second, out, 1, x.rows);
  } else {
    if constexpr (B > 1) put<1>(out.first, out, 1, x.rows);
    if constexpr (B > 2) put<2>(out.first, out, 2, x.rows);
    if constexpr (B > 3) put<3>(out.first, out, 3, x.rows);
  }
}

static void one_tile(int32_t blocks, const Weights& w, const Tokens& x, const Out& out) {
  if (blocks == 4) return tile<1, 4>(w, x, out);
  if (blocks == 3) return tile<1, 3>(w, x, out);
  if (blocks == 2) return tile<1, 2>(w, x, out);
  tile<1, 1>(w, x, out);
}

static void two_tiles(int32_t blocks, Weights w, const Tokens& x, Out out) {
  for (; blocks > 0; blocks -= 2) {
    if (blocks == 1) return tile<2, 1>(w, x, out);
    tile<2, 2>(w, x, out);
    w.from += 2 * w.stride;
    out.first += 2 * out.step, out.second += 2 * out.step, out.rows -= 2 * out.step;
  }
}

}  // namespace

void sp_gemm_bf16_amx(const SpPacked* w, const SpPanel* p, const SpInput* in, float* y, int64_t ldy) {
  if (w->exact) return sp_gemm_bf16(w, p, in, y, ldy);
  const Weights weights = {w->data + p->begin * w->block_bytes, p->step * w->block_bytes, w->pairs};
  const auto* x = reinterpret_cast<const uint8_t*>(in->half);
  const int64_t stride = in->ld_half * 2;
  const int32_t n = in->n, rows = n < kTileRows ? n : kTileRows;
  // The last tile begins where it is full: tokens that it shares with the one before get the same bits again.
  const auto begin = [&](int32_t t) { return t + kTileRows <= n || n < kTileRows ? t : n - kTileRows; };
  for (int32_t t = 0; t < n; t += 2 * kTileRows) {
    const int32_t first = begin(t), second = begin(t + kTileRows);
    const Tokens tokens = {x + first * stride, x + second * stride, stride, rows};
    const Out out = {y + first * ldy, y + second * ldy, ldy, p->step * SP_LANES, p->rows};
    if (t + kTileRows < n)
      two_tiles(p->count, weights, tokens, out);
    else
      one_tile(p->count, weights, tokens, out);
  }
}
