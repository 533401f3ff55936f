// What a machine's tiles multiply when they do nothing else.
#include "../kernels.h"
#include "kernels_amx.h"
#include "tiles.h"

float sp_limit_bf16_amx(int64_t steps) {
  alignas(64) uint16_t ones[kTileRows * 32];
  alignas(64) float sums[kTileRows * SP_LANES];
  for (uint16_t& one : ones) one = 0x3F80;
  sp_shape_tiles(kTileRows, kTileBytes);
  load_tile<4>(ones, kTileBytes), load_tile<5>(ones, kTileBytes);
  load_tile<6>(ones, kTileBytes), load_tile<7>(ones, kTileBytes);
  clear_tile<0>(), clear_tile<1>(), clear_tile<2>(), clear_tile<3>();
  constexpr int64_t kFlops = 4 * 2 * kTileRows * SP_LANES * 32;
  for (int64_t left = steps * SP_LIMIT_FLOPS; left > 0; left -= kFlops) {
    add_bf16<0, 4, 6>(), add_bf16<1, 4, 7>();
    add_bf16<2, 5, 6>(), add_bf16<3, 5, 7>();
  }
  store_tile<0>(sums, kTileBytes);
  return sums[0];
}
