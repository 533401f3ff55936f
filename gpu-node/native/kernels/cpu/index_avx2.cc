// Index scores for avx2: 8 lanes.
#define SP_WIDTH 8
#include "index_body.h"

void sp_index_avx2(const float* q, const float* w, int32_t heads, int32_t dim, const float* keys, int32_t count,
                   float* scores) {
  index_scores(q, w, heads, dim, keys, count, scores);
}
