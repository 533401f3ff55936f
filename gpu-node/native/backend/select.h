// Exact top-k of one row of index scores, shared by every CPU backend so that they agree on ties.
#pragma once
#include <cstdint>

namespace sparrow {

/// Writes the ascending positions of the min(k, length) largest scores (higher score first, then lower position; NaN
/// counts as lowest, -0 equals +0). Returns how many. O(length), no copy of more than the row.
int32_t select_top_k(float* scores, int64_t length, int32_t k, int32_t* chosen);

}  // namespace sparrow
