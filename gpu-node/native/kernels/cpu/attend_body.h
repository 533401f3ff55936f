// Absorbed attention for one token and head over SP_WIDTH lanes, included by attend_<isa>.cc.
#include <math.h>

#include "ops.h"
#include "vector.h"

namespace {

SP_INLINE const float* page_at(const SpPages* pages, const int32_t* table, int64_t s) {
  return reinterpret_cast<const float*>(pages->base + pages->page_stride * table[s / SP_PAGE_TOKENS]);
}

static void attend_head(const SpAttendHead* a, const SpPages* pages) {
  const int64_t latent = pages->latent, rope = pages->rope;
  float top = -INFINITY, total = 0;
  for (int32_t j = 0; j < a->count; j++) {
    const int64_t s = a->chosen ? a->chosen[j] : j;
    const float* page = page_at(pages, a->table, s);
    const int64_t at = s % SP_PAGE_TOKENS;
    const float score = (dot(a->q_latent, page + at * latent, latent) +
                         dot(a->q_rope, page + SP_PAGE_TOKENS * latent + at * rope, rope)) *
                        a->scale;
    a->scratch[j] = score;
    top = score > top ? score : top;
  }
  for (int64_t i = 0; i < latent; i++) a->z[i] = 0;
  for (int32_t j = 0; j < a->count; j++) {
    const int64_t s = a->chosen ? a->chosen[j] : j;
    const float* row = page_at(pages, a->table, s) + s % SP_PAGE_TOKENS * latent;
    const float p = expf(a->scratch[j] - top);
    total += p;
    int64_t i = 0;
    for (; i + SP_WIDTH <= latent; i += SP_WIDTH) store(a->z + i, load(a->z + i) + load(row + i) * p);
    for (; i < latent; i++) a->z[i] += p * row[i];
  }
  for (int64_t i = 0; i < latent; i++) a->z[i] /= total;
}

}  // namespace
