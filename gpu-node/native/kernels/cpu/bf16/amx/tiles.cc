// Shapes of the tile registers.
#include "tiles.h"

namespace {

/// What LDTILECFG reads.
struct alignas(64) Shapes {
  uint8_t palette, start, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

}  // namespace

void sp_shape_tiles(int32_t rows, int32_t bytes) {
  // LDTILECFG takes a hundred nanoseconds, so a thread keeps what it has.
  static thread_local int32_t now = 0;
  const int32_t wanted = rows << 16 | bytes;
  if (now == wanted) return;
  now = wanted;
  Shapes s = {};
  s.palette = 1;
  for (int i = 0; i < 8; i++) {
    s.rows[i] = static_cast<uint8_t>(i < 6 ? rows : bytes / 4);
    s.row_bytes[i] = static_cast<uint16_t>(i >= 4 && i < 6 ? bytes : kTileBytes);
  }
  __asm__ volatile("ldtilecfg %0" ::"m"(s));
}
