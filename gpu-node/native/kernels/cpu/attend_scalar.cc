// The scalar twin of absorbed attention for one token and head.
#include <math.h>

#include "../../backend/decode.h"
#include "ops.h"

void sp_attend_scalar(const SpAttendHead* a, const SpPages* pages) {
  float top = -INFINITY, total = 0;
  for (int32_t j = 0; j < a->count; j++) {
    const int64_t s = a->chosen ? a->chosen[j] : j;
    const float *c = sparrow::latent_row(*pages, a->table, s), *k = sparrow::rope_row(*pages, a->table, s);
    float dot = 0;
    for (int32_t i = 0; i < pages->latent; i++) dot += a->q_latent[i] * c[i];
    for (int32_t i = 0; i < pages->rope; i++) dot += a->q_rope[i] * k[i];
    a->scratch[j] = dot * a->scale;
    top = a->scratch[j] > top ? a->scratch[j] : top;
  }
  for (int32_t i = 0; i < pages->latent; i++) a->z[i] = 0;
  for (int32_t j = 0; j < a->count; j++) {
    const float p = expf(a->scratch[j] - top);
    const float* c = sparrow::latent_row(*pages, a->table, a->chosen ? a->chosen[j] : j);
    total += p;
    for (int32_t i = 0; i < pages->latent; i++) a->z[i] += p * c[i];
  }
  for (int32_t i = 0; i < pages->latent; i++) a->z[i] /= total;
}
