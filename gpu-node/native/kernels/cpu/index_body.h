// Index scores over SP_WIDTH lanes, included by index_<isa>.cc.  I[s] = sum_j w[j] relu(q[j] . k[s])
#include "ops.h"
#include "vector.h"

namespace {

static void index_scores(const float* q, const float* w, int32_t heads, int32_t dim, const float* keys, int32_t count,
                         float* scores) {
  for (int64_t s = 0; s < count; s++) {
    float sum = 0;
    for (int64_t j = 0; j < heads; j++) {
      const float d = dot(q + j * dim, keys + s * dim, dim);
      sum += w[j] * (d > 0 ? d : 0);
    }
    scores[s] = sum;
  }
}

}  // namespace
