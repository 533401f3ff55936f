// The indexer: scores against the reference, the choice against a plain sort of the backend's own scores, ties
// included.
#include <algorithm>
#include <limits>
#include <numeric>

#include "ops.h"

namespace sparrow::test {
namespace {

struct Queries {
  int32_t heads = 1, dim = 1, top_k = 1;
  std::vector<float> q, w;
};

/// Each token's chosen positions (-7 where none), count, and scores (NaN beyond its position when asked for).
struct Selection {
  std::vector<float> chosen, counts, scores;
};

Selection select(const SpBackend& b, const Queries& queries, const TestCache& cache, const TestTokens& tokens,
                 int32_t first, int32_t count, int64_t ld_scores) {
  const SpPages& pages = cache.on(b);
  SpIndexQuery query{};
  const auto q = slice(queries.q, int64_t{queries.heads} * queries.dim, first, count),
             w = slice(queries.w, queries.heads, first, count);
  query.q = q.data();
  query.w = w.data();
  query.heads = queries.heads;
  query.dim = queries.dim;
  query.top_k = queries.top_k;
  const SpTokens part = tokens.part(first, count);
  Guarded<int32_t> chosen(int64_t{count} * queries.top_k), counts(count);
  Guarded<float> scores(count * ld_scores);
  b.index_select(b.self, &query, &pages, &part, chosen.data(), counts.data(), ld_scores ? scores.data() : nullptr,
                 ld_scores);
  return {chosen.take(), counts.take(), scores.take()};
}

std::vector<float> best(const float* scores, int32_t length, int32_t k) {
  std::vector<int32_t> order(static_cast<size_t>(length));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  order.resize(static_cast<size_t>(std::min(length, k)));
  std::sort(order.begin(), order.end());
  return {order.begin(), order.end()};
}

/// One sequence whose keys are given (dim floats each), one query at its end.
TestCache cache_of(Random& random, const std::vector<float>& keys, int32_t dim) {
  const int32_t length = static_cast<int32_t>(keys.size()) / dim;
  TestCache cache(random, 4, 2, dim, {length});
  for (int32_t s = 0; s < length; s++) std::copy_n(&keys[static_cast<size_t>(s * dim)], dim, cache.index(0, s));
  return cache;
}

/// w relu(q k) with q, w = 1 and -1 is the key itself: any row of scores can be presented.
void selections(Check& check) {
  Random random(12);
  const Fixtures& f = check.fixtures;
  for (const std::string& name : f.names()) {
    if (!name.starts_with("selection/") || !name.ends_with(".scores")) continue;
    const std::string at = name.substr(0, name.size() - 7);
    const auto scores = f.floats(name);
    const auto want = f.ints(at + ".chosen");
    TestCache cache = cache_of(random, scores, 1);
    TestTokens tokens;
    tokens.add(cache, 0, static_cast<int32_t>(scores.size()) - 1);
    const Queries queries = {2, 1, static_cast<int32_t>(want.size()), {1, -1}, {1, -1}};
    const Selection got = select(check.backend(), queries, cache, tokens, 0, 1, 0);
    check.near(at, got.chosen, std::vector<float>(want.begin(), want.end()), 0);
    check.that(at + ": its count", got.counts[0] == static_cast<float>(want.size()));
  }
  for (const std::string& name : {std::string("index/"), std::string("index/tied.")}) {
    TestCache cache = cache_of(random, f.floats(name + "k"), 32);
    TestTokens tokens;
    for (int t = 0; t < 4; t++) tokens.add(cache, 0, 89);
    const Queries queries = {8, 32, 20, f.floats("index/q"), f.floats("index/w")};
    const Selection got = select(check.backend(), queries, cache, tokens, 0, 4, 90);
    const auto chosen = f.ints(name + "chosen");
    check.near(name + "scores", got.scores, f.floats(name + "scores"), check.rounds() ? check.tolerance(true) : 0);
    // Rounded keys may rightly be chosen otherwise: what is checked then is the choice among a backend's own scores,
    // below.
    if (!check.rounds()) check.near(name + "chosen", got.chosen, std::vector<float>(chosen.begin(), chosen.end()), 0);
  }
}

/// Many equal scores over more pages than one thread takes: whichever part is done first, the earliest positions stay.
void long_ties(Check& check) {
  constexpr int32_t kLength = 4000, kTopK = 600;
  std::vector<float> scores(kLength, 1.0f);
  std::fill_n(scores.begin(), 800, 0.5f);  // the first part has none of them: another is done before the second begins
  for (int32_t i = 0; i < kLength; i += 97) scores[static_cast<size_t>(kLength - 1 - i)] = 2.0f;
  Random random(14);
  TestCache cache = cache_of(random, scores, 1);
  TestTokens tokens;
  tokens.add(cache, 0, kLength - 1);
  const Queries queries = {2, 1, kTopK, {1, -1}, {1, -1}};
  for (int round = 0; round < 20; round++) {
    const Selection got = select(check.backend(), queries, cache, tokens, 0, 1, 0);
    check.near("long ties", got.chosen, best(scores.data(), kLength, kTopK), 0);
  }
}

/// Divided by the largest size in `row`: int8 keys and queries err in proportion to a row, not to one score.
std::vector<float> scaled(std::vector<float> values, const std::vector<float>& row) {
  float most = 0;
  for (const float v : row) most = std::max(most, std::abs(v));
  for (float& v : values) v = most > 0 ? v / most : v;
  return values;
}

struct Shape {
  int32_t heads, dim, top_k;
  bool dyadic;
};

void shape(Check& check, Random& random, const Shape& s) {
  TestCache cache(random, 3, 2, s.dim, {65, 700, 200});
  cache.fill(random, s.dyadic);
  TestTokens tokens;
  for (const int32_t at : {0, 1, 62, 63, 64}) tokens.add(cache, 0, at);
  for (int i = 0; i < 20; i++) tokens.add(cache, 1, i < 3 ? 699 - i : random.below(700));
  for (int i = 0; i < 8; i++) tokens.add(cache, 2, 199 - i);
  const int32_t n = tokens.size();
  const int64_t q_size = int64_t{n} * s.heads * s.dim, w_size = int64_t{n} * s.heads;
  const Queries queries = {s.heads, s.dim, s.top_k, s.dyadic ? random.dyadics(q_size) : random.normals(q_size, 0.3f),
                           s.dyadic ? random.dyadics(w_size) : random.normals(w_size, 0.3f)};
  const std::string what =
      std::to_string(s.heads) + " heads of " + std::to_string(s.dim) + ", k " + std::to_string(s.top_k);

  const Selection all = select(check.backend(), queries, cache, tokens, 0, n, 703);
  const Selection oracle = select(reference_backend(), queries, cache, tokens, 0, n, 703);
  for (int64_t t = 0; t < n; t++) {
    const int32_t length = tokens.positions[static_cast<size_t>(t)] + 1, count = std::min(length, s.top_k);
    const auto scores = slice(slice(all.scores, 703, t, 1), 1, 0, length);
    const auto want = slice(slice(oracle.scores, 703, t, 1), 1, 0, length);
    if (check.rounds())
      check.near(what + ": scores of the row's size", scaled(scores, want), scaled(want, want), check.tolerance(true));
    else
      check.near(what + ": scores", scores, want, s.dyadic ? 0 : check.tolerance());
    check.that(what + ": count", all.counts[static_cast<size_t>(t)] == static_cast<float>(count));
    check.same(what + ": choice", slice(slice(all.chosen, s.top_k, t, 1), 1, 0, count),
               best(scores.data(), length, s.top_k));
  }
  // The same sets in every batch, on every number of threads, whether or not scores are wanted. Slots beyond the
  // count are nobody's; NaN scores of the oracle never get here.
  const Compute compute = [&](const SpBackend& on, int32_t first, int32_t count) {
    Selection got = select(on, queries, cache, tokens, first, count, 0);
    for (int64_t t = 0; t < count; t++) {
      for (int64_t i = static_cast<int64_t>(got.counts[static_cast<size_t>(t)]); i < s.top_k; i++)
        got.chosen[static_cast<size_t>(t * s.top_k + i)] = -1;
    }
    return got.chosen;
  };
  check.tokens(what, n, compute, check.rounds() ? std::numeric_limits<double>::infinity() : 0);
}

}  // namespace

void test_index_select(Check& check) {
  selections(check);
  long_ties(check);
  Random random(13);
  for (const Shape& s : {Shape{1, 1, 1, true},
                         {4, 16, 8, true},
                         {8, 32, 64, true},
                         {3, 33, 700, true},
                         {64, 128, 5, false},
                         {4, 24, 2048, false},
                         {1, 128, 16, false},
                         {5, 7, 65, false},
                         {13, 1, 64, false}}) {  // eight, four and one at a time, and nothing to round
    shape(check, random, s);
  }
}

}  // namespace sparrow::test
