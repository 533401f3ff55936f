// Which form of attention a piece of a sequence takes: a rule of sizes and measured costs, the same on every machine.
#pragma once
#include <cstdint>

namespace sparrow {

struct AttentionShape {
  int64_t rank, rope, nope, v;
};

/// `tokens` tokens at positions first, first + 1, ...; top_k: how many keys the indexer leaves a query, 0 for all.
struct AttentionPiece {
  int64_t tokens, first, top_k;
};

constexpr int64_t kExpandedTokensMin = 64;

/// Predicted time of one head, in time of one multiply-add of absorbed attention. Absorbed: queries absorbed and values
/// made for each token, rank and rope scores and rank sums for each key it keeps. Expanded: keys and values made for
/// each key of the piece, nope, rope and v for every key a query may see, kept or not.
double absorbed_cost(const AttentionShape& shape, const AttentionPiece& piece);
double expanded_cost(const AttentionShape& shape, const AttentionPiece& piece);

inline bool expanded_pays(const AttentionShape& shape, const AttentionPiece& piece) {
  return expanded_cost(shape, piece) < absorbed_cost(shape, piece);
}

}  // namespace sparrow
