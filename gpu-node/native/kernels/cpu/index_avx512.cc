// Index scores for avx512: 16 lanes.
#define SP_WIDTH 16
#include "index_body.h"

void sp_index_avx512(const float* q, const float* w, int32_t heads, int32_t dim, const float* keys, int32_t count,
                     float* scores) {
  index_scores(q, w, heads, dim, keys, count, scores);
}
