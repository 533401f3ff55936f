// Expanded attention: what the absorbed form of the reference gives, with and without a choice, in any batch, nothing
// read beyond a position.
#include <algorithm>

#include "ops.h"

namespace sparrow::test {
namespace {

struct Shape {
  int32_t heads, latent, nope, rope, v, index, top_k, length;  // top_k 0: every position
};

/// kv_b_proj of one layer: keys (heads * nope, latent), the same transposed per head for absorbing, values.
struct Weights {
  TestMatrix uk, absorb, uv;
};

TestMatrix matrix(int32_t dtype, int32_t heads, int32_t rows, int32_t cols, const std::vector<float>& values) {
  std::vector<uint8_t> bytes;
  for (const float value : values) {
    const auto* from = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), from + (dtype == SP_BF16 ? 2 : 0), from + 4);  // values are BF16 numbers already
  }
  return TestMatrix(dtype, heads * rows, cols, bytes, {}, false).with_heads(heads);
}

Weights weights_of(Random& random, const Shape& s, int32_t dtype) {
  const auto rounded = [&](int64_t count) {
    std::vector<float> out = random.dyadics(count);
    for (float& value : out) value *= s.latent > 64 ? 0.125f : 0.5f;  // keys of size one
    return out;
  };
  const auto uk = rounded(int64_t{s.heads} * s.nope * s.latent), uv = rounded(int64_t{s.heads} * s.v * s.latent);
  std::vector<float> absorb(uk.size());
  for (int64_t h = 0; h < s.heads; h++) {
    for (int64_t i = 0; i < s.nope; i++) {
      for (int64_t r = 0; r < s.latent; r++)
        absorb[static_cast<size_t>((h * s.latent + r) * s.nope + i)] =
            uk[static_cast<size_t>((h * s.nope + i) * s.latent + r)];
    }
  }
  return {matrix(dtype, s.heads, s.nope, s.latent, uk), matrix(dtype, s.heads, s.latent, s.nope, absorb),
          matrix(dtype, s.heads, s.v, s.latent, uv)};
}

struct Queries {
  const Shape& s;
  const Weights& w;
  std::vector<float> q;  // (n, heads, nope + rope)
  std::vector<int32_t> chosen, counts;
  float scale = 0.2f;
};

std::vector<float> expanded(const SpBackend& b, const Queries& q, const TestCache& cache, const TestTokens& tokens,
                            int32_t first, int32_t count) {
  const Shape& s = q.s;
  const auto part_q = slice(q.q, int64_t{s.heads} * (s.nope + s.rope), first, count);
  std::vector<int32_t> chosen;
  if (s.top_k) chosen = slice(q.chosen, s.top_k, first, count);
  const SpExpanded a = {part_q.data(),
                        q.w.uk.on(b),
                        q.w.uv.on(b),
                        s.top_k ? chosen.data() : nullptr,
                        s.top_k ? q.counts.data() + first : nullptr,
                        s.heads,
                        s.nope,
                        s.v,
                        s.top_k,
                        q.scale};
  const SpTokens part = tokens.part(first, count);
  Guarded<float> out(int64_t{count} * s.heads * s.v);
  b.attend_expanded(b.self, &a, &cache.on(b), &part, out.data());
  return out.take();
}

/// The same by the reference's absorbed form.
std::vector<float> absorbed(const Queries& q, const TestCache& cache, const TestTokens& tokens) {
  const SpBackend b = reference_backend();
  const Shape& s = q.s;
  const int64_t n = tokens.size(), heads = s.heads, dim = s.nope + s.rope;
  std::vector<float> latent(static_cast<size_t>(n * heads * s.latent)), rope, z(latent.size()),
      out(static_cast<size_t>(n * heads * s.v));
  const auto count = static_cast<int32_t>(n);
  b.matmul_heads(b.self, &q.w.absorb.plain(), q.q.data(), heads * dim, dim, count, latent.data());
  for (int64_t i = 0; i < n * heads; i++)
    rope.insert(rope.end(), q.q.begin() + i * dim + s.nope, q.q.begin() + (i + 1) * dim);
  const SpAttention a = {
      latent.data(), rope.data(), s.top_k ? q.chosen.data() : nullptr, s.top_k ? q.counts.data() : nullptr, s.heads,
      s.top_k,       q.scale};
  const SpTokens all = tokens.part(0, count);
  b.attend(b.self, &a, &cache.on(b), &all, z.data());
  b.matmul_heads(b.self, &q.w.uv.plain(), z.data(), heads * s.latent, s.latent, count, out.data());
  return out;
}

/// Ascending positions up to each token's own: one, all of them, or some.
void choose(Random& random, const TestTokens& tokens, Queries& q) {
  for (int32_t t = 0; t < tokens.size(); t++) {
    const int32_t length = tokens.positions[static_cast<size_t>(t)] + 1;
    const int32_t count = std::min(length, t == 3 ? 1 : t % 4 == 0 ? q.s.top_k : 1 + random.below(q.s.top_k));
    std::vector<int32_t> list;
    for (int32_t at = 0; at < length; at++) {
      if (random.below(length - at) < count - static_cast<int32_t>(list.size())) list.push_back(at);
    }
    q.counts.push_back(count);
    list.resize(static_cast<size_t>(q.s.top_k), -1);
    q.chosen.insert(q.chosen.end(), list.begin(), list.end());
  }
}

void shape(Check& check, Random& random, const Shape& s, int32_t dtype) {
  // Neighbours in memory whose pages must not be touched; the sequence itself ends with the last token or one before.
  TestCache cache(random, s.latent, s.rope, s.index, {70, s.length, 70});
  cache.fill(random);
  TestTokens tokens;
  const int32_t n = std::min(s.length, 75);
  for (int32_t t = s.length - n; t < s.length; t++) tokens.add(cache, 1, t);
  const Weights weights = weights_of(random, s, dtype);
  Queries q = {s, weights, random.normals(int64_t{n} * s.heads * (s.nope + s.rope)), {}, {}};
  if (s.top_k) choose(random, tokens, q);
  const std::string what = std::to_string(s.heads) + " heads, latent " + std::to_string(s.latent) + ", " +
                           std::to_string(s.length) + " keys, k " + std::to_string(s.top_k);
  const Compute compute = [&](const SpBackend& on, int32_t first, int32_t count) {
    return expanded(on, q, cache, tokens, first, count);
  };
  check.near(what + ", against the absorbed form", compute(check.backend(), 0, n), absorbed(q, cache, tokens),
             check.tolerance(true));
  check.tokens(what, n, compute, check.tolerance(true));
}

}  // namespace

void test_attend_expanded(Check& check) {
  if (!check.backend().attend_expanded) return check.that("the reference has the operation", !check.rounds());
  Random random(16);
  for (const Shape& s : {Shape{1, 1, 1, 2, 1, 0, 0, 1},
                         {2, 32, 16, 8, 16, 16, 0, 17},
                         {3, 17, 7, 10, 5, 0, 8, 90},
                         {5, 40, 20, 8, 72, 3, 64, 129},
                         {2, 136, 64, 24, 33, 0, 500, 200},
                         {2, 256, 128, 64, 128, 128, 33, 160},
                         {33, 16, 8, 2, 16, 0, 0, 64}}) {
    for (const int32_t dtype : {SP_BF16, SP_F32}) {
      if (dtype == SP_F32 && s.latent > 64) continue;
      shape(check, random, s, dtype);
    }
  }
}

}  // namespace sparrow::test
