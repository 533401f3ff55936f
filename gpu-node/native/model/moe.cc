// Feed-forward: SwiGLU on dense layers; else y = sum over the chosen of weight * Expert(u) + SharedExpert(u).
#include <algorithm>

#include "model.h"

namespace sparrow {

/// What reads the layer's input: gate and up of the dense or shared expert, and the router's logits.
void Model::project_ffn(const LayerWeights& w, int32_t n) {
  const SpBackend& b = backend_.table;
  SpProduct products[3];
  int32_t count = 0;
  const auto add = [&](const SpMatrix& matrix, Lines<float>& y) {
    if (!matrix.rows) return;
    y.resize(static_cast<size_t>(n) * matrix.rows);
    products[count++] = {&matrix, y.data()};
  };
  add(w.mlp.gate, s_.gate);
  add(w.mlp.up, s_.up);
  add(w.router, s_.router);
  b.matmul(b.self, products, count, s_.normed.data(), n);
}

void Model::mlp(const MlpWeights& w, int32_t n) {
  const SpBackend& b = backend_.table;
  const SpProduct down = {&w.down, s_.out.data()};
  b.swiglu(b.self, s_.gate.data(), s_.up.data(), static_cast<int64_t>(s_.gate.size()));
  b.matmul(b.self, &down, 1, s_.gate.data(), n);
}

void Model::feed_forward(const LayerWeights& w, const Step& step) {
  const SpBackend& b = backend_.table;
  const int32_t n = step.tokens->n;
  project_ffn(w, n);
  if (w.mlp.gate.rows)
    mlp(w.mlp, n);
  else
    std::fill(s_.out.begin(), s_.out.end(), 0.0f);
  if (step.tap) (*step.tap)(step.layer, "ffn_norm", s_.normed.data(), n, config_.hidden_size);
  if (w.router.rows) {
    const bool noaux = config_.topk_method == TopkMethod::kNoauxTc;
    const bool grouped = config_.topk_method != TopkMethod::kGreedy;
    const SpGate gate = {w.router_bias.empty() ? nullptr : w.router_bias.data(),
                         config_.n_routed_experts,
                         config_.num_experts_per_tok,
                         grouped ? config_.n_group : 1,
                         config_.topk_group,
                         config_.scoring_func == ScoringFunc::kSigmoid,
                         noaux,
                         config_.norm_topk_prob,
                         static_cast<float>(config_.routed_scaling_factor)};
    s_.expert_ids.resize(static_cast<size_t>(n) * gate.top_k);
    s_.expert_weights.resize(s_.expert_ids.size());
    b.gate(b.self, &gate, s_.router.data(), n, s_.expert_ids.data(), s_.expert_weights.data());
    const SpExperts experts = {w.expert_gate.data(), w.expert_up.data(), w.expert_down.data(), gate.experts,
                               gate.top_k};
    b.experts(b.self, &experts, s_.normed.data(), s_.expert_ids.data(), s_.expert_weights.data(), n, s_.out.data());
    if (step.tap) {
      const std::vector<float> ids(s_.expert_ids.begin(), s_.expert_ids.end());
      (*step.tap)(step.layer, "expert_ids", ids.data(), n, gate.top_k);
      (*step.tap)(step.layer, "expert_weights", s_.expert_weights.data(), n, gate.top_k);
    }
  }
  if (step.tap) (*step.tap)(step.layer, "ffn_out", s_.out.data(), n, config_.hidden_size);
}

}  // namespace sparrow
