// Matrix product of packed BF16 weights by tiles: a packed block's 16 pairs of columns are a tile as they lie. One
// token is computed as sixteen are. Where weights are `exact`, an fp32 activation is the sum of three BF16, without a
// remainder, and each of them meets the weights; fp32 and subnormal weights go the way of AVX-512.
#include "../kernels.h"
#include "few.h"
#include "kernels_amx.h"
#include "tiles.h"

namespace {

constexpr int32_t kTilePairs = kTileBytes / 4;
constexpr int64_t kAhead = 2048;  // bytes of a block

struct Weights {
  const uint8_t* from;
  int64_t stride;  // bytes from a block of the panel to the next
  int32_t pairs;
  bool fetch;  // they come from memory: ask for them a little before
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

SP_INLINE __mmask16 first_lanes(int64_t left) {
  return static_cast<__mmask16>(left >= SP_LANES ? 0xFFFF : left <= 0 ? 0 : (1 << left) - 1);
}

/// Sums of 16 rows, of which the last block may have fewer.
template <int C>
SP_INLINE void put(float* y, const Out& out, int32_t block, int32_t tokens) {
  const int32_t left = out.rows - block * out.step;
  y += block * out.step;
  if (left >= SP_LANES) return store_tile<C>(y, out.ldy * 4);
  alignas(64) float sums[kTileRows * SP_LANES];
  store_tile<C>(sums, kTileBytes);
  const __mmask16 mask = first_lanes(left);
  for (int32_t t = 0; t < tokens; t++)
    _mm512_mask_storeu_ps(y + t * out.ldy, mask, _mm512_load_ps(sums + t * SP_LANES));
}

template <int B>
SP_INLINE void fetch(const uint8_t* at, int64_t stride) {
  for (int64_t b = 0; b < B; b++) {
    for (int64_t i = 0; i < kTileRows; i++) __builtin_prefetch(at + b * stride + i * kTileBytes);
  }
}

/// The k-th sixteen pairs of B blocks times one or two tiles of tokens: block b's sums are C = b, or 2 b and 2 b + 1.
template <int A, int B>
SP_INLINE void step(const Weights& w, const Tokens& x, int64_t k) {
  const uint8_t* at = w.from + k * kTileRows * kTileBytes;
  if (w.fetch) fetch<B>(at + kAhead, w.stride);
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

/// Asks for rows [from, to) of the results of two tiles of tokens: they come while tiles are multiplied.
template <int B>
SP_INLINE void ask_for_rows(const Out& out, int64_t from, int64_t to) {
  for (int64_t t = from; t < to && t < 2 * kTileRows; t++) {
    const float* row = t < kTileRows ? out.first + t * out.ldy : out.second + (t - kTileRows) * out.ldy;
    for (int64_t b = 0; b < B; b++) __builtin_prefetch(row + b * out.step, 1);
  }
}

/// B blocks by one tile of tokens (up to four blocks), or two (up to two).
template <int A, int B>
static void tile(const Weights& w, const Tokens& x, const Out& out) {
  sp_shape_tiles(x.rows, kTileBytes);
  clear_tile<0>(), clear_tile<1>(), clear_tile<2>(), clear_tile<3>();
  const int64_t steps = w.pairs / kTilePairs, rows = steps ? (2 * kTileRows + steps - 1) / steps : 0;
  for (int64_t k = 0; k < steps; k++) {
    if constexpr (A == 2) ask_for_rows<B>(out, k * rows, (k + 1) * rows);
    step<A, B>(w, x, k);
  }
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

/// Where the tile of the tokens from t on begins: the last one where it is full. Tokens that it shares with the one
/// before get the same bits again.
SP_INLINE int32_t tile_begin(int32_t t, int32_t n) {
  return t + kTileRows <= n || n < kTileRows ? t : n - kTileRows;
}

/// `n` rows of BF16, `stride` bytes apart.
static void multiply(Weights w, int32_t blocks, const uint16_t* half, int64_t stride, int32_t n, const Out& out) {
  if (n <= SP_FEW)
    return sp_multiply_few({w.from, w.stride, w.pairs, half, stride / 2}, n, blocks, out.first, out.ldy, out.step,
                           out.rows);
  const auto* x = reinterpret_cast<const uint8_t*>(half);
  for (int32_t t = 0; t < n; t += 2 * kTileRows) {
    w.fetch = t == 0;
    const int32_t first = tile_begin(t, n), second = tile_begin(t + kTileRows, n);
    const Tokens tokens = {x + first * stride, x + second * stride, stride, n < kTileRows ? n : kTileRows};
    const Out own = {out.first + first * out.ldy, out.first + second * out.ldy, out.ldy, out.step, out.rows};
    if (t + kTileRows < n)
      two_tiles(blocks, w, tokens, own);
    else
      one_tile(blocks, w, tokens, own);
  }
}

/// Up to 16 tokens from `from` on: each part by itself, as if it were a token; then the three sums, small ones first.
static void multiply_parts(const Weights& w, const SpPanel* p, const SpInput* in, int32_t from, float* y, int64_t ldy) {
  constexpr int32_t kRows = SP_PANEL_BLOCKS * SP_LANES;
  alignas(64) float sums[3 * kTileRows * kRows];
  const int32_t n = in->n < kTileRows ? in->n : kTileRows;
  const int64_t stride = in->ld_half * 2, part = int64_t{n} * kRows;
  const auto into = [&](float* to) { return Out{to, nullptr, kRows, SP_LANES, p->count * SP_LANES}; };
  if (in->n == n) {
    multiply(w, p->count, in->parts, stride, 3 * n, into(sums));
  } else {
    for (int64_t i = 0; i < 3; i++)
      multiply(w, p->count, in->parts + (i * in->n + from) * in->ld_half, stride, n, into(sums + i * part));
  }
  for (int64_t b = 0; b < p->count; b++) {
    const int64_t at = b * p->step * SP_LANES;
    const __mmask16 mask = first_lanes(p->rows - at);
    for (int64_t t = 0; t < n; t++) {
      const float* first = sums + t * kRows + b * SP_LANES;
      const __m512 small = _mm512_add_ps(_mm512_load_ps(first + 2 * part), _mm512_load_ps(first + part));
      _mm512_mask_storeu_ps(y + (from + t) * ldy + at, mask, _mm512_add_ps(small, _mm512_load_ps(first)));
    }
  }
}

}  // namespace

void sp_gemm_bf16_amx(const SpPacked* w, const SpPanel* p, const SpInput* in, float* y, int64_t ldy) {
  const Weights weights = {w->data + p->begin * w->block_bytes, p->step * w->block_bytes, w->pairs, false};
  if (w->exact && w->dtype == SP_BF16 && !w->subnormal && in->parts) {
    for (int32_t t = 0; t < in->n; t += kTileRows) multiply_parts(weights, p, in, tile_begin(t, in->n), y, ldy);
    return;
  }
  if (w->exact) return sp_gemm_bf16(w, p, in, y, ldy);
  multiply(weights, p->count, in->half, in->ld_half * 2, in->n, {y, nullptr, ldy, p->step * SP_LANES, p->rows});
}

void sp_split_row_amx(const float* x, int64_t count, int64_t padded, int64_t apart, uint16_t* y) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  const auto upper = [&](__m512 v) { return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), high)); };
  for (int64_t i = 0; i < padded; i += 16) {
    const __m512 whole = _mm512_maskz_loadu_ps(first_lanes(count - i), x + i);
    const __m512 first = upper(whole), rest = _mm512_sub_ps(whole, first), second = upper(rest);
    const __m512 parts[3] = {first, second, _mm512_sub_ps(rest, second)};
    for (int64_t p = 0; p < 3; p++)
      _mm256_mask_storeu_epi16(y + p * apart + i, first_lanes(padded - i),
                               _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(parts[p]), 16)));
  }
}
