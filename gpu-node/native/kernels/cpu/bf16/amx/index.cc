// Index scores by tiles: a row is a head, a column a key. Dot products are exact, and the sums over heads are those of
// AVX-512 bit for bit.
#include "../kernels.h"
#include "kernels_amx.h"
#include "tiles.h"

namespace {

constexpr int32_t kTileQuads = kTileBytes / 4, kGroups = SP_PAGE_TOKENS / SP_LANES;

/// Dot products of `heads` heads and 64 keys: dots (group of keys, 16, 16). `step` quads go through a tile at once.
static void multiply(const int8_t* q, int32_t heads, const uint8_t* keys, int64_t quads, int64_t step,
                     int32_t (*dots)[kTileRows * SP_LANES]) {
  const int64_t group = quads * kTileBytes;
  sp_shape_tiles(heads, static_cast<int32_t>(step * 4));
  clear_tile<0>(), clear_tile<1>(), clear_tile<2>(), clear_tile<3>();
  for (int64_t d = 0; d < quads; d += step) {
    const uint8_t* at = keys + d * kTileBytes;
    load_tile<4>(q + d * 4, quads * 4);
    load_tile<6>(at, kTileBytes), add_codes<0, 4, 6>();
    load_tile<7>(at + group, kTileBytes), add_codes<1, 4, 7>();
    load_tile<6>(at + 2 * group, kTileBytes), add_codes<2, 4, 6>();
    load_tile<7>(at + 3 * group, kTileBytes), add_codes<3, 4, 7>();
  }
  store_tile<0>(dots[0], kTileBytes), store_tile<1>(dots[1], kTileBytes);
  store_tile<2>(dots[2], kTileBytes), store_tile<3>(dots[3], kTileBytes);
}

/// As many quads as a tile takes and all quads are a multiple of: one shape for all steps.
static int64_t step_of(int64_t quads) {
  int64_t step = quads < kTileQuads ? quads : kTileQuads;
  while (quads % step) step--;
  return step;
}

}  // namespace

void sp_index_page_amx(const SpIndexHeads* query, const SpLayout* layout, const uint8_t* keys, const uint8_t* next,
                       float* scores) {
  const int64_t quads = layout->index_quads, step = step_of(quads);
  for (int g = 0; g < kGroups && next; g++) {  // the processor brings the rest by itself
    __builtin_prefetch(next + g * quads * kTileBytes);
    __builtin_prefetch(next + g * quads * kTileBytes + 64);
  }
  alignas(64) int32_t dots[kGroups][kTileRows * SP_LANES];
  __m512 sum[kGroups];
  for (int g = 0; g < kGroups; g++) sum[g] = _mm512_setzero_ps();
  for (int32_t j = 0; j < query->heads; j += kTileRows) {
    const int32_t heads = query->heads - j < kTileRows ? query->heads - j : kTileRows;
    multiply(query->q + j * quads * 4, heads, keys, quads, step, dots);
    for (int32_t i = 0; i < heads; i++) {
      const __m512 w = _mm512_set1_ps(query->w[j + i]);
      const __m512i start = _mm512_set1_epi32(query->start[j + i]);
      for (int g = 0; g < kGroups; g++) {
        const __m512i dot = _mm512_add_epi32(_mm512_load_si512(dots[g] + i * SP_LANES), start);
        sum[g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_max_epi32(dot, _mm512_setzero_si512())), w, sum[g]);
      }
    }
  }
  for (int g = 0; g < kGroups; g++) {
    const __m512 scale = _mm512_load_ps((const float*)(keys + layout->scales_at) + g * SP_LANES);
    _mm512_storeu_ps(scores + g * SP_LANES, _mm512_mul_ps(sum[g], scale));
  }
}
