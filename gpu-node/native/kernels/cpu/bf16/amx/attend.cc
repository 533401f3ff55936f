// Absorbed attention of one query over one chunk of keys, by tiles. Chosen rows are brought together first. Scores: a
// row is a key, a column a head. Weighted sum: a row is a head, a column a latent dimension, keys go in pairs.
#include "../chunk.h"
#include "../kernels.h"
#include "kernels_amx.h"
#include "tiles.h"

namespace {

constexpr int64_t kAhead = 32;  // keys: chosen rows lie apart, and memory takes longer than a few keys' work
constexpr int32_t kStepKeys = kTileBytes / 2, kSteps = SP_CHUNK_KEYS / kStepKeys;
constexpr int64_t kColumns = 64;  // latents of one pass over the keys

/// Rows of the chunk's keys, `ld` halves apart.
struct Rows {
  const uint16_t* first;
  int64_t ld;
  int32_t count;
};

static Rows gather(const SpChunk* c, const SpKvView* kv, uint16_t* wide) {
  const SpLayout* l = &kv->layout;
  const int64_t ld = l->row_halves + 32;
  const auto row_of = [&](int32_t i) {
    const int64_t at = c->chosen ? c->chosen[i] : c->first + i;
    return kv->base + kv->page_stride * kv->table[at / SP_PAGE_TOKENS] + at % SP_PAGE_TOKENS * l->row_bytes;
  };
  const auto prefetch = [&](int32_t i) {
    const uint8_t* row = row_of(i);
    for (int64_t at = 0; at < l->row_bytes; at += 64) _mm_prefetch((const char*)(row + at), _MM_HINT_T0);
  };
  for (int32_t i = 0; i < c->count && i < kAhead; i++) prefetch(i);
  for (int32_t i = 0; i < c->count; i++) {
    if (i + kAhead < c->count) prefetch(static_cast<int32_t>(i + kAhead));
    const uint8_t* row = row_of(i);
    if (l->fp8) {
      sp_load_fp8_row(l, row, wide + i * ld);
    } else {
      for (int64_t d = 0; d < l->row_halves; d += 32)
        _mm512_storeu_si512(wide + i * ld + d, _mm512_loadu_si512(row + d * 2));
    }
  }
  return {wide, ld, c->count};
}

/// scores (keys, 16) in sixteens of keys: those behind the last key are of whatever lies there.
static void score(const uint16_t* query, const Rows& rows, int64_t halves, float* scores) {
  const int64_t stride = rows.ld * 2, sixteen = kTileRows * rows.ld;
  for (int32_t i = 0; i < rows.count; i += 4 * kTileRows) {
    const uint16_t* from = rows.first + i * rows.ld;
    float* to = scores + i * SP_LANES;
    clear_tile<0>(), clear_tile<1>(), clear_tile<2>(), clear_tile<3>();
    for (int64_t d = 0; d < halves; d += 32) {
      load_tile<6>(query + d * SP_LANES, kTileBytes);
      load_tile<4>(from + d, stride), add_bf16<0, 4, 6>();
      load_tile<5>(from + sixteen + d, stride), add_bf16<1, 5, 6>();
      load_tile<4>(from + 2 * sixteen + d, stride), add_bf16<2, 4, 6>();
      load_tile<5>(from + 3 * sixteen + d, stride), add_bf16<3, 5, 6>();
    }
    store_tile<0>(to, kTileBytes), store_tile<1>(to + 256, kTileBytes);
    store_tile<2>(to + 512, kTileBytes), store_tile<3>(to + 768, kTileBytes);
  }
}

/// Weights of key pairs (pair, head, 2) as tiles of 16 heads and 32 keys.
static void pack_weights(const uint16_t* weights, int32_t steps, uint16_t* tiles) {
  for (int32_t s = 0; s < steps; s++) {
    __m512i rows[16];
    for (int i = 0; i < 16; i++) rows[i] = _mm512_load_si512(weights + (s * 16 + i) * 32);
    sp_transpose(rows);
    for (int i = 0; i < 16; i++) _mm512_store_si512(tiles + (s * 16 + i) * 32, rows[i]);
  }
}

/// Columns [d, d + 64) of key pairs as four blocks of tiles: of each 32 columns first those that unpacking calls low
/// (0-3, 8-11, ...), then the others. Keys behind the last are zeros.
static void pack_columns(const Rows& rows, int64_t d, int64_t columns, int32_t steps, uint16_t* tiles) {
  const int64_t block = int64_t{steps} * kTileRows * 32;
  for (int64_t at = 0; at < columns; at += 32, tiles += 2 * block) {
    for (int32_t i = 0; i < steps * kStepKeys; i += 2) {
      const uint16_t* row = rows.first + i * rows.ld + d + at;
      const __m512i a = i < rows.count ? _mm512_loadu_si512(row) : _mm512_setzero_si512();
      const __m512i b = i + 1 < rows.count ? _mm512_loadu_si512(row + rows.ld) : _mm512_setzero_si512();
      _mm512_store_si512(tiles + i * 16, _mm512_unpacklo_epi16(a, b));
      _mm512_store_si512(tiles + block + i * 16, _mm512_unpackhi_epi16(a, b));
    }
  }
}

/// Sums of 32 columns, low and high, to z (heads, latent) at column d.
SP_INLINE void put(const float* low, const float* high, int32_t heads, int64_t d, int64_t latent, float* z) {
  const __m512i first = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
  const __m512i second = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
  const int64_t left = latent - d;
  const __mmask16 m0 = left >= 16 ? 0xFFFF : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
  const __mmask16 m1 = left >= 32 ? 0xFFFF : left <= 16 ? 0 : static_cast<__mmask16>((1u << (left - 16)) - 1);
  for (int64_t h = 0; h < heads; h++) {
    const __m512 a = _mm512_load_ps(low + h * SP_LANES), b = _mm512_load_ps(high + h * SP_LANES);
    _mm512_mask_storeu_ps(z + h * latent + d, m0, _mm512_permutex2var_ps(a, first, b));
    _mm512_mask_storeu_ps(z + h * latent + d + 16, m1, _mm512_permutex2var_ps(a, second, b));
  }
}

/// z (heads, latent) = weights times latents.
static void weigh(const Rows& rows, const uint16_t* weights, int32_t steps, int32_t heads, int64_t latent, float* z) {
  alignas(64) uint16_t columns[kColumns * SP_CHUNK_KEYS];
  alignas(64) float sums[4][kTileRows * SP_LANES];
  const int64_t tile = kTileRows * 32, block = steps * tile;
  for (int64_t d = 0; d < latent; d += kColumns) {
    const bool wide = latent - d > 32;
    pack_columns(rows, d, wide ? 64 : 32, steps, columns);
    clear_tile<0>(), clear_tile<1>(), clear_tile<2>(), clear_tile<3>();
    for (int32_t s = 0; s < steps; s++) {
      const uint16_t* from = columns + s * tile;
      load_tile<4>(weights + s * tile, kTileBytes);
      load_tile<6>(from, kTileBytes), add_bf16<0, 4, 6>();
      load_tile<7>(from + block, kTileBytes), add_bf16<1, 4, 7>();
      if (!wide) continue;
      load_tile<6>(from + 2 * block, kTileBytes), add_bf16<2, 4, 6>();
      load_tile<7>(from + 3 * block, kTileBytes), add_bf16<3, 4, 7>();
    }
    store_tile<0>(sums[0], kTileBytes), store_tile<1>(sums[1], kTileBytes);
    put(sums[0], sums[1], heads, d, latent, z);
    if (!wide) continue;
    store_tile<2>(sums[2], kTileBytes), store_tile<3>(sums[3], kTileBytes);
    put(sums[2], sums[3], heads, d + 32, latent, z);
  }
}

}  // namespace

void sp_attend_chunk_amx(const SpChunk* c, const SpKvView* kv, uint16_t* wide, SpSoftmax* out) {
  alignas(64) float scores[SP_CHUNK_KEYS * SP_LANES];
  alignas(64) uint16_t weights[SP_CHUNK_KEYS * SP_LANES], tiles[SP_CHUNK_KEYS * SP_LANES];
  const Rows rows = gather(c, kv, wide);
  sp_shape_tiles(kTileRows, kTileBytes);
  score(c->query, rows, kv->layout.row_halves, scores);
  sp_chunk_softmax(c, scores, weights, out);
  const int32_t steps = (c->count + kStepKeys - 1) / kStepKeys;
  for (int32_t i = (c->count + 1) / 2 * 2; i < steps * kStepKeys; i += 2)
    _mm512_store_si512(weights + i * SP_LANES, _mm512_setzero_si512());
  pack_weights(weights, steps, tiles);
  weigh(rows, tiles, steps, c->heads, kv->layout.latent, out->z);
}
