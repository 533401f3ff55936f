// Hands every weight to the backend once, to be rearranged as its kernels read them, in one allocation.
#include "model.h"

namespace sparrow {
namespace {

void each_mlp(MlpWeights& w, const std::function<void(SpMatrix&)>& visit) {
  for (SpMatrix* m : {&w.gate, &w.up, &w.down}) visit(*m);
}

void each_of_layer(LayerWeights& l, const std::function<void(SpMatrix&)>& visit) {
  for (SpMatrix* m : {&l.q_a_proj, &l.kv_a_proj, &l.indexer.wk, &l.indexer.weights_proj, &l.q_proj, &l.indexer.wq_b,
                      &l.uk, &l.uk_rows, &l.uv, &l.o_proj, &l.router})
    visit(*m);
  each_mlp(l.mlp, visit);
  for (size_t e = 0; e < l.expert_gate.size(); e++) {
    visit(l.expert_gate[e]);
    visit(l.expert_up[e]);
    visit(l.expert_down[e]);
  }
}

/// Every matrix that a matmul reads, in the order in which a step reads them. The embedding is read by rows and stays.
void each_matrix(Weights& weights, const std::function<void(SpMatrix&)>& visit) {
  for (LayerWeights& l : weights.layers) each_of_layer(l, visit);
  visit(weights.lm_head);
  if (!weights.mtp) return;
  visit(weights.mtp->eh_proj);
  each_of_layer(weights.mtp->layer, visit);
  visit(weights.mtp->head);
}

}  // namespace

Status Model::pack() {
  const SpBackend& b = backend_.table;
  const auto bytes_of = [&](const SpMatrix& m) { return m.rows ? (b.pack(b.self, &m, nullptr) + 63) / 64 * 64 : 0; };
  int64_t total = 0;
  each_matrix(weights_, [&](SpMatrix& m) { total += bytes_of(m); });
  if (total == 0) return ok_status();
  packed_ = HugeBuffer(static_cast<size_t>(total));
  if (!packed_.data())
    return error(Code::kEngineFailed, "no memory for " + std::to_string(total) + " bytes of weights");
  uint8_t* to = packed_.data();
  each_matrix(weights_, [&](SpMatrix& m) {
    const int64_t bytes = bytes_of(m);
    if (bytes == 0) return;
    b.pack(b.self, &m, to);
    m.packed = to;
    to += bytes;
  });
  weights_.files->drop_resident();
  return ok_status();
}

}  // namespace sparrow
