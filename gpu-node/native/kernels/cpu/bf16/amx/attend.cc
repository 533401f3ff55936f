// Absorbed attention of one query over one chunk of keys, by tiles. Chosen rows are brought together first. Scores: a
// row is a key, a column a head. Weighted sum: a row is a head, a column a latent dimension, keys go in pairs.
#include "../chunk.h"
#include "../kernels.h"
#include "kernels_amx.h"
#include "tiles.h"

namespace {

constexpr int32_t kStepKeys = kTileBytes / 2;  // of one product of weights and latents
constexpr int64_t kTileHalves = kTileRows * 32, kColumnHalves = SP_CHUNK_KEYS / kStepKeys * kTileHalves;

/// The chunk's key rows twice: one after the other, and as tiles of 16 key pairs by 16 columns.
struct Keys {
  uint16_t* rows;   // (keys, ld)
  uint16_t* tiles;  // (columns / 16, 4 steps): of each 32 columns first those that unpacking calls low (0-3, 8-11, ...)
  int64_t ld;
  int32_t count, steps;
};

struct Gather {
  const SpChunk* c;
  const SpKvView* kv;

  const uint8_t* row(int32_t i) const { return sp_key_row(kv, c->keys, i); }
  /// Where row i can be read as BF16: in its page or in `room`.
  const uint16_t* half(int32_t i, uint16_t* room) const {
    if (i >= c->keys.count) return room;
    if (!kv->layout.fp8) return (const uint16_t*)row(i);
    sp_load_fp8_row(&kv->layout, row(i), room);
    return room;
  }

  void bring(const Keys& k) const {
    const int64_t halves = kv->layout.row_halves, latent = kv->layout.latent;
    for (int32_t i = 0; i < k.steps * kStepKeys; i += 2) {
      uint16_t *first = k.rows + i * k.ld, *second = first + k.ld;
      const uint16_t *a = half(i, first), *b = half(i + 1, second);
      const __mmask32 has_a = i < c->keys.count ? ~0u : 0,
                      has_b = i + 1 < c->keys.count ? ~0u : 0;  // behind the last: zeros
      uint16_t* tile = k.tiles + i * 16;
      for (int64_t d = 0; d < halves; d += 32, tile += 2 * kColumnHalves) {
        const __m512i x = _mm512_maskz_loadu_epi16(has_a, a + d), y = _mm512_maskz_loadu_epi16(has_b, b + d);
        _mm512_storeu_si512(first + d, x), _mm512_storeu_si512(second + d, y);
        if (d >= latent) continue;
        _mm512_store_si512(tile, _mm512_unpacklo_epi16(x, y));
        _mm512_store_si512(tile + kColumnHalves, _mm512_unpackhi_epi16(x, y));
      }
    }
  }
};

/// scores (keys, 16) in sixteens of keys: those behind the last key are of whatever lies there.
static void score(const uint16_t* query, const Keys& keys, int64_t halves, float* scores) {
  const int64_t stride = keys.ld * 2, sixteen = kTileRows * keys.ld;
  for (int32_t i = 0; i < keys.count; i += 4 * kTileRows) {
    const uint16_t* from = keys.rows + i * keys.ld;
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

/// z (heads, latent) = weights times latents, 64 columns at a time; `sums` (columns / 16, 16, 16).
static void weigh(const Keys& k, const uint16_t* weights, int32_t heads, int64_t latent, float* sums, float* z) {
  constexpr int64_t sum = kTileRows * SP_LANES;
  for (int64_t d = 0; d < latent; d += 64) {
    const bool wide = latent - d > 32;
    const uint16_t* from = k.tiles + d / 16 * kColumnHalves;
    float* to = sums + d / 16 * sum;
    clear_tile<0>(), clear_tile<1>(), clear_tile<2>(), clear_tile<3>();
    for (int32_t s = 0; s < k.steps; s++, from += kTileHalves) {
      load_tile<4>(weights + s * kTileHalves, kTileBytes);
      load_tile<6>(from, kTileBytes), add_bf16<0, 4, 6>();
      load_tile<7>(from + kColumnHalves, kTileBytes), add_bf16<1, 4, 7>();
      if (!wide) continue;
      load_tile<6>(from + 2 * kColumnHalves, kTileBytes), add_bf16<2, 4, 6>();
      load_tile<7>(from + 3 * kColumnHalves, kTileBytes), add_bf16<3, 4, 7>();
    }
    store_tile<0>(to, kTileBytes), store_tile<1>(to + sum, kTileBytes);
    if (wide) store_tile<2>(to + 2 * sum, kTileBytes), store_tile<3>(to + 3 * sum, kTileBytes);
  }
  for (int64_t d = 0; d < latent; d += 32) {
    const float *low = sums + d / 16 * sum, *high = low + sum;
    for (int64_t h = 0; h < heads; h++)
      sp_store_unpacked(_mm512_load_ps(low + h * SP_LANES), _mm512_load_ps(high + h * SP_LANES), latent - d,
                        z + h * latent + d);
  }
}

}  // namespace

void sp_attend_chunk_amx(const SpChunk* c, const SpKvView* kv, uint16_t* wide, SpSoftmax* out) {
  alignas(64) float scores[SP_CHUNK_KEYS * SP_LANES];
  alignas(64) uint16_t weights[SP_CHUNK_KEYS * SP_LANES], tiles[SP_CHUNK_KEYS * SP_LANES];
  const SpLayout& l = kv->layout;
  const int64_t ld = l.row_halves + 32;
  const Keys keys = {wide, wide + SP_CHUNK_KEYS * ld, ld, c->keys.count, (c->keys.count + kStepKeys - 1) / kStepKeys};
  if (!c->again) Gather{c, kv}.bring(keys);
  sp_shape_tiles(kTileRows, kTileBytes);
  score(c->query, keys, l.row_halves, scores);
  sp_chunk_softmax(c, scores, weights, out);
  for (int32_t i = (c->keys.count + 1) / 2 * 2; i < keys.steps * kStepKeys; i += 2)
    _mm512_store_si512(weights + i * SP_LANES, _mm512_setzero_si512());
  pack_weights(weights, keys.steps, tiles);
  weigh(keys, tiles, c->heads, l.latent, (float*)(keys.tiles + SP_CHUNK_KEYS * ld), out->z);
}
