// Absorbed attention: all positions or a chosen list, several sequences in one call, nothing read beyond a position.
#include <algorithm>

#include "ops.h"

namespace sparrow::test {
namespace {

struct Queries {
  int32_t heads = 1, top_k = 0;  // top_k 0: every position
  float scale = 1;
  std::vector<float> latent, rope;
  std::vector<int32_t> chosen, counts;
};

std::vector<float> attend(const SpBackend& b, const Queries& q, const TestCache& cache, const TestTokens& tokens,
                          int32_t first, int32_t count) {
  const SpPages& pages = cache.on(b);
  const auto latent = slice(q.latent, int64_t{q.heads} * pages.latent, first, count),
             rope = slice(q.rope, int64_t{q.heads} * pages.rope, first, count);
  std::vector<int32_t> chosen;
  if (q.top_k) chosen = slice(q.chosen, q.top_k, first, count);
  SpAttention a{};
  a.q_latent = latent.data();
  a.q_rope = rope.data();
  a.chosen = q.top_k ? chosen.data() : nullptr;
  a.counts = q.top_k ? q.counts.data() + first : nullptr;
  a.heads = q.heads;
  a.top_k = q.top_k;
  a.scale = q.scale;
  const SpTokens part = tokens.part(first, count);
  Guarded<float> z(int64_t{count} * q.heads * pages.latent);
  b.attend(b.self, &a, &pages, &part, z.data());
  return z.take();
}

void fixture(Check& check) {
  Random random(14);
  const Fixtures& f = check.fixtures;
  TestCache cache(random, 24, 6, 0, {130});
  const auto latent = f.floats("attend/latent"), rope = f.floats("attend/rope"), z = f.floats("attend/z");
  for (int64_t s = 0; s < 130; s++) {
    std::copy_n(latent.data() + s * 24, 24, cache.latent(0, s));
    std::copy_n(rope.data() + s * 6, 6, cache.rope(0, s));
  }
  TestTokens tokens;
  for (int t = 0; t < 4; t++) tokens.add(cache, 0, 129);
  Queries q = {3,
               0,
               0.25f,
               f.floats("attend/q_latent"),
               f.floats("attend/q_rope"),
               f.ints("attend/chosen"),
               f.ints("attend/counts")};
  check.near("attend/z of every position", attend(check.backend(), q, cache, tokens, 0, 1), slice(z, 72, 0, 1),
             check.tolerance(true));
  q.top_k = 70;
  check.near("attend/z of chosen ones", attend(check.backend(), q, cache, tokens, 1, 3), slice(z, 72, 1, 3),
             check.tolerance(true));
}

struct Shape {
  int32_t heads, latent, rope, index, top_k;
};

/// Ascending positions up to each token's own: none at all for one token, a single one, all of them, or some.
void choose(Random& random, const TestTokens& tokens, Queries& q) {
  for (int32_t t = 0; t < tokens.size(); t++) {
    const int32_t length = tokens.positions[static_cast<size_t>(t)] + 1;
    const int32_t count = std::min(length, t == 3 ? 1 : t % 4 == 0 ? q.top_k : 1 + random.below(q.top_k));
    std::vector<int32_t> list;
    for (int32_t s = 0; s < length; s++) {
      if (random.below(length - s) < count - static_cast<int32_t>(list.size())) list.push_back(s);
    }
    q.counts.push_back(count);
    list.resize(static_cast<size_t>(q.top_k), -1);
    q.chosen.insert(q.chosen.end(), list.begin(), list.end());
  }
}

void shape(Check& check, Random& random, const Shape& s) {
  TestCache cache(random, s.latent, s.rope, s.index, {65, 400, 130});
  cache.fill(random);
  TestTokens tokens;
  for (const int32_t at : {0, 1, 62, 63, 64}) tokens.add(cache, 0, at);
  for (int i = 0; i < 20; i++) tokens.add(cache, 1, i < 3 ? 399 - i : random.below(400));
  for (int i = 0; i < 8; i++) tokens.add(cache, 2, 129 - i);
  const int32_t n = tokens.size();
  Queries q = {s.heads,
               s.top_k,
               0.3f,
               random.normals(int64_t{n} * s.heads * s.latent),
               random.normals(int64_t{n} * s.heads * s.rope),
               {},
               {}};
  const std::string what =
      std::to_string(s.heads) + " heads, latent " + std::to_string(s.latent) + ", k " + std::to_string(s.top_k);
  if (s.top_k) choose(random, tokens, q);
  const Compute compute = [&](const SpBackend& on, int32_t first, int32_t count) {
    return attend(on, q, cache, tokens, first, count);
  };
  check.tokens(what, n, compute, check.tolerance(true));
  if (!s.top_k) return;
  // A token with an empty list has no defined result, but must not disturb the others.
  const int64_t width = int64_t{s.heads} * s.latent;
  const auto before = compute(check.backend(), 0, n);
  q.counts[7] = 0;
  const auto after = compute(check.backend(), 0, n);
  check.same(what + ", before an empty list", slice(after, width, 0, 7), slice(before, width, 0, 7));
  check.same(what + ", after an empty list", slice(after, width, 8, n - 8), slice(before, width, 8, n - 8));
}

/// As in a prompt: tokens side by side that attend to all before them, across the end of a chunk of keys.
void neighbours(Check& check, int32_t heads) {
  Random random(16);
  TestCache cache(random, 64, 16, 0, {300, 40});
  cache.fill(random);
  TestTokens tokens;
  for (int i = 0; i < 24; i++) tokens.add(cache, 0, 245 + i);
  for (int i = 0; i < 9; i++) tokens.add(cache, 1, i);
  const int32_t n = tokens.size();
  const Queries q = {heads, 0, 0.1f, random.normals(int64_t{n} * heads * 64), random.normals(int64_t{n} * heads * 16),
                     {},    {}};
  const Compute compute = [&](const SpBackend& on, int32_t first, int32_t count) {
    return attend(on, q, cache, tokens, first, count);
  };
  check.tokens("neighbours, " + std::to_string(heads) + " heads", n, compute, check.tolerance(true));
}

}  // namespace

void test_attend(Check& check) {
  fixture(check);
  for (const int32_t heads : {2, 20, 130}) neighbours(check, heads);
  Random random(15);
  for (const Shape& s : {Shape{1, 1, 2, 0, 0},
                         {4, 32, 8, 16, 0},
                         {3, 17, 10, 0, 8},
                         {16, 32, 8, 16, 1},
                         {5, 40, 8, 3, 64},
                         {2, 136, 24, 0, 500},
                         {3, 512, 64, 128, 33},
                         {33, 16, 2, 0, 0}}) {
    shape(check, random, s);
  }
}

}  // namespace sparrow::test
