// Absorbed attention for avx2: 8 lanes.
#define SP_WIDTH 8
#include "attend_body.h"

void sp_attend_avx2(const SpAttendHead* a, const SpPages* pages) {
  attend_head(a, pages);
}
