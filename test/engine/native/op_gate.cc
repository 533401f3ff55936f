// The router's choice: all the traps of the fixture, then every kind of gate against the reference.
#include <cmath>
#include <limits>
#include <set>

#include "ops.h"

namespace sparrow::test {
namespace {

SpGate gate_of(const std::vector<float>* bias, int32_t experts, const std::vector<int32_t>& params) {
  SpGate g{};
  g.bias = bias ? bias->data() : nullptr;
  g.experts = experts;
  g.groups = params[0];
  g.top_groups = params[1];
  g.top_k = params[2];
  g.normalize = params[3];
  g.sigmoid = params[4];
  g.group_by_top2 = params[5];
  g.factor = 2.5f;
  return g;
}

/// Ids, then weights, of each token.
std::vector<float> choose(const SpBackend& b, const SpGate& g, const float* logits, int32_t n) {
  Guarded<int32_t> ids(int64_t{n} * g.top_k);
  Guarded<float> weights(int64_t{n} * g.top_k);
  b.gate(b.self, &g, logits, n, ids.data(), weights.data());
  const auto i = ids.take(), w = weights.take();
  std::vector<float> out;
  for (int64_t t = 0; t < n; t++) {
    out.insert(out.end(), i.begin() + t * g.top_k, i.begin() + (t + 1) * g.top_k);
    out.insert(out.end(), w.begin() + t * g.top_k, w.begin() + (t + 1) * g.top_k);
  }
  return out;
}

/// Logits that a damaged checkpoint gives: half of them NaN. Whatever is chosen exists, once, and a NaN only when the
/// others run out.
void test_gate_of_nan(Check& check) {
  constexpr int32_t kExperts = 128, kTopK = 6;
  const SpGate g = gate_of(nullptr, kExperts, {2, 1, kTopK, 1, 1, 1});
  Random random(10);
  auto logits = random.normals(kExperts, 2);
  for (size_t e = 0; e < logits.size(); e++) {
    if (e * 7 % 16 < 8) logits[e] = std::numeric_limits<float>::quiet_NaN();
  }
  const auto chosen = choose(check.backend(), g, logits.data(), 1);
  std::set<float> seen;
  for (int32_t k = 0; k < kTopK; k++) {
    const float id = chosen[static_cast<size_t>(k)];
    const bool exists = id >= 0 && id < kExperts && seen.insert(id).second;
    check.that("NaN: slot " + std::to_string(k), exists && !std::isnan(logits[static_cast<size_t>(id)]));
  }
}

}  // namespace

void test_gate(Check& check) {
  test_gate_of_nan(check);
  const Fixtures& f = check.fixtures;
  for (const std::string& name : f.names()) {
    if (!name.starts_with("gate/") || !name.ends_with(".logits")) continue;
    const std::string at = name.substr(0, name.size() - 7);
    const auto logits = f.floats(name), bias = f.has(at + ".bias") ? f.floats(at + ".bias") : std::vector<float>{};
    const SpGate g =
        gate_of(bias.empty() ? nullptr : &bias, static_cast<int32_t>(logits.size()), f.ints(at + ".params"));
    const auto ids = f.ints(at + ".ids");
    std::vector<float> want(ids.begin(), ids.end());
    for (const float w : f.floats(at + ".weights")) want.push_back(w);
    check.near(at, choose(check.backend(), g, logits.data(), 1), want);
  }
  Random random(9);
  const std::vector<std::pair<int32_t, std::vector<int32_t>>> gates = {
      {1, {1, 1, 1, 1, 1, 1}},   {5, {1, 1, 5, 1, 1, 1}},   {16, {4, 2, 3, 1, 1, 1}}, {64, {8, 3, 6, 0, 0, 0}},
      {160, {8, 3, 6, 0, 0, 0}}, {256, {8, 4, 8, 1, 1, 1}}, {33, {1, 1, 7, 1, 0, 1}}, {24, {12, 5, 4, 0, 1, 1}}};
  for (const auto& [experts, params] : gates) {
    for (const bool biased : {false, true}) {
      const auto logits = random.normals(int64_t{33} * experts, 2), bias = random.normals(experts, 0.5f);
      const SpGate g = gate_of(biased ? &bias : nullptr, experts, params);
      check.tokens(std::to_string(experts) + " experts", 33,
                   [&, experts = experts](const SpBackend& on, int32_t first, int32_t count) {
                     return choose(on, g, slice(logits, experts, first, count).data(), count);
                   });
    }
  }
}

}  // namespace sparrow::test
