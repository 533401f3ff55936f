// Absorbed attention for avx512: 16 lanes.
#define SP_WIDTH 16
#include "attend_body.h"

void sp_attend_avx512(const SpAttendHead* a, const SpPages* pages) {
  attend_head(a, pages);
}
