// The scalar twin of the index score: I[s] = sum_j w[j] relu(q[j] . k[s]).
#include "ops.h"

void sp_index_scalar(const float* q, const float* w, int32_t heads, int32_t dim, const float* keys, int32_t count,
                     float* scores) {
  for (int64_t s = 0; s < count; s++) {
    float sum = 0;
    for (int64_t j = 0; j < heads; j++) {
      float dot = 0;
      for (int64_t i = 0; i < dim; i++) dot += q[j * dim + i] * keys[s * dim + i];
      sum += w[j] * (dot > 0 ? dot : 0);
    }
    scores[s] = sum;
  }
}
