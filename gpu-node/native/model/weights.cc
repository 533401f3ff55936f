// Names to matrices. Quantisation is decided by dtype and by the presence of a scale, never by name.
#include "weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../backend/decode.h"

namespace sparrow {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// The published model multiplies a BF16 head by the norm's output in BF16; one of fp32 keeps its precision.
SpMatrix as_head(SpMatrix w) {
  w.exact = w.dtype == SP_F32;
  return w;
}

class Loader {
 public:
  Loader(const Checkpoint& files, int group, Weights& out) : files_(files), group_(group), out_(out) {}

  const Status& status() const { return status_; }

  /// A (rows, cols) weight, with its scales when it is quantised: FP8 has NAME_scale_inv, int8 (I8) and int4 (U8, two
  /// columns a byte) have NAME_scale.
  SpMatrix matrix(const std::string& name, int64_t rows, int64_t cols) {
    const TensorView* found = files_.find(name);
    const bool nibbles = found && found->dtype == DType::kU8;
    const TensorView* t = tensor(name, {rows, nibbles ? ceil_div(cols, 2) : cols});
    if (!t) return {};
    SpMatrix m{nullptr, nullptr, 0, static_cast<int32_t>(rows), static_cast<int32_t>(cols), 0, 1, 0, 0, nullptr};
    switch (t->dtype) {
      case DType::kF32:
        m.dtype = SP_F32;
        break;
      case DType::kBF16:
        m.dtype = SP_BF16;
        break;
      case DType::kF8E4M3:
        m.dtype = SP_F8_E4M3;
        break;
      case DType::kI8:
        m.dtype = SP_I8;
        break;
      case DType::kU8:
        m.dtype = SP_I4;
        break;
      default:
        fail(unsupported(name + ": its dtype is not supported; supported: BF16, F32, F8_E4M3, I8, U8 (int4)"));
        return {};
    }
    out_.parameters += rows * cols;
    if (!read_scales(name, *t, m)) return {};
    m.data = aligned(*t, m.dtype == SP_F32 ? 4 : m.dtype == SP_BF16 ? 2 : 1);
    return m;
  }

  /// Activations are not rounded for it, unless it is quantised itself.
  SpMatrix exact_matrix(const std::string& name, int64_t rows, int64_t cols) {
    SpMatrix m = matrix(name, rows, cols);
    m.exact = m.group == 0;
    return m;
  }

  SpMatrix head(const std::string& name, int64_t rows, int64_t cols) { return as_head(matrix(name, rows, cols)); }

  /// A vector of gains, biases and the like, as fp32; every value finite.
  std::vector<float> vector(const std::string& name, int64_t size) {
    const TensorView* t = tensor(name, {size});
    if (!t) return {};
    if (t->dtype != DType::kF32 && t->dtype != DType::kBF16)
      return fail(unsupported(name + ": its dtype is not supported; supported: BF16, F32")), std::vector<float>{};
    std::vector<float> out(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; i++) {
      uint16_t half = 0;
      if (t->dtype == DType::kF32)
        std::memcpy(&out[i], t->data + i * 4, 4);
      else
        std::memcpy(&half, t->data + i * 2, 2), out[i] = bf16_to_float(half);
      if (!std::isfinite(out[i]))
        return fail(invalid(name + ": element " + std::to_string(i) + " is not finite")), std::vector<float>{};
    }
    out_.parameters += size;
    return out;
  }

  bool has(const std::string& name) const { return files_.find(name) != nullptr; }
  bool any_under(const std::string& prefix) const { return files_.any_under(prefix); }

  /// Whether `name` is absent or says again, bit for bit, what `other` says.
  bool repeats(const std::string& name, const std::string& other) const {
    if (!has(name)) return true;
    for (const char* suffix : {"", "_scale_inv", "_scale"}) {
      const TensorView *a = files_.find(name + suffix), *b = files_.find(other + suffix);
      if (!a && !b) continue;
      if (!a || !b || a->dtype != b->dtype || a->shape != b->shape) return false;
      if (!std::equal(a->data, a->data + a->bytes, b->data, b->data + b->bytes)) return false;
    }
    return true;
  }

  uint8_t* own(size_t bytes) {
    out_.owned.push_back(std::shared_ptr<uint8_t[]>(new uint8_t[bytes]));
    return out_.owned.back().get();
  }

  void fail(Status s) {
    if (status_.ok()) status_ = std::move(s);
  }

 private:
  bool read_scales(const std::string& name, const TensorView& t, SpMatrix& m) {
    if (m.dtype == SP_I8 || m.dtype == SP_I4) {
      if (group_ == 0)
        return fail(invalid(name + ": is quantised, but config.json has no quantization_config.group_size")), false;
      m.group = group_;
      m.scale = scales(name + "_scale", m.rows, ceil_div(m.cols, group_), DType::kBF16);
      const uint8_t* lowest = m.dtype == SP_I8 ? std::find(t.data, t.data + t.bytes, uint8_t{0x80}) : t.data + t.bytes;
      if (lowest != t.data + t.bytes)
        return fail(invalid(name + ": holds -128 at element " + std::to_string(lowest - t.data) +
                            "; the range is -127 to 127")),
               false;
    } else if (m.dtype == SP_F8_E4M3) {
      m.group = SP_SCALE_BLOCK;
      m.scale =
          scales(name + "_scale_inv", ceil_div(m.rows, SP_SCALE_BLOCK), ceil_div(m.cols, SP_SCALE_BLOCK), DType::kF32);
      for (size_t i = 0; i < t.bytes; i++) {
        if ((t.data[i] & 0x7F) == 0x7F)
          return fail(invalid(name + ": holds an FP8 NaN at element " + std::to_string(i))), false;
      }
    } else {
      for (const char* suffix : {"_scale_inv", "_scale"}) {
        if (has(name + suffix)) return fail(invalid(name + ": has a " + suffix + ", but is not quantised")), false;
      }
    }
    return status_.ok();
  }

  const TensorView* tensor(const std::string& name, const std::vector<int64_t>& shape) {
    const TensorView* t = files_.find(name);
    if (!t)
      fail(invalid(name + ": is missing"));
    else if (t->shape != shape)
      fail(invalid(name + ": has shape " + shape_text(t->shape) + ", expected " + shape_text(shape)));
    else
      return t;
    return nullptr;
  }

  /// Multipliers as fp32: F32 beside FP8, BF16 beside int8 and int4.
  const float* scales(const std::string& name, int64_t rows, int64_t cols, DType dtype) {
    const TensorView* t = tensor(name, {rows, cols});
    if (!t) return nullptr;
    if (t->dtype != dtype)
      return fail(unsupported(name +
                              ": its dtype is not supported; supported: " + (dtype == DType::kF32 ? "F32" : "BF16"))),
             nullptr;
    const float* values = static_cast<const float*>(dtype == DType::kF32 ? aligned(*t, 4) : widened(*t));
    for (int64_t i = 0; i < rows * cols; i++) {
      if (!std::isfinite(values[i]))
        return fail(invalid(name + ": element " + std::to_string(i) + " is not finite")), nullptr;
    }
    return values;
  }

  const void* widened(const TensorView& t) {
    uint8_t* copy = own(t.bytes * 2);
    for (size_t i = 0; i < t.bytes / 2; i++) {
      copy[i * 4] = copy[i * 4 + 1] = 0;
      std::memcpy(copy + i * 4 + 2, t.data + i * 2, 2);
    }
    return copy;
  }

  const void* aligned(const TensorView& t, size_t width) {
    if (reinterpret_cast<uintptr_t>(t.data) % width == 0) return t.data;
    uint8_t* copy = own(t.bytes);
    std::memcpy(copy, t.data, t.bytes);
    return copy;
  }

  const Checkpoint& files_;
  const int group_;
  Weights& out_;
  Status status_;
};

/// Cuts kv_b_proj (heads * (nope + v), kv_lora) into UK, transposed per head, and UV. BF16 stays BF16; the rest becomes
/// fp32, since a transposed FP8 block would need other scales. Beside quantised weights both may become int8, unless
/// keys are expanded: the expanded form multiplies rows of the cache, which are not.
void split_kv_b(Loader& in, const ModelConfig& c, const SpMatrix& kv_b, bool expanded, LayerWeights& out) {
  const int64_t heads = c.num_attention_heads, nope = c.qk_nope_head_dim, v = c.v_head_dim, rank = c.kv_lora_rank;
  const int32_t dtype = kv_b.dtype == SP_BF16 ? SP_BF16 : SP_F32;
  const int64_t width = dtype == SP_BF16 ? 2 : 4;
  uint8_t* uk = in.own(static_cast<size_t>(heads * rank * nope * width));
  uint8_t* uv = in.own(static_cast<size_t>(heads * v * rank * width));
  uint8_t* uk_rows = expanded ? in.own(static_cast<size_t>(heads * nope * rank * width)) : nullptr;
  const auto put = [&](uint8_t* to, int64_t at, int64_t row, int64_t col) {
    const float value = static_cast<float>(weight_at(kv_b, row, col));
    if (dtype == SP_F32)
      std::memcpy(to + at * 4, &value, 4);
    else
      std::memcpy(to + at * 2, static_cast<const uint16_t*>(kv_b.data) + row * rank + col, 2);
  };
  for (int64_t h = 0; h < heads; h++) {
    const int64_t first = h * (nope + v);
    for (int64_t r = 0; r < rank; r++) {
      for (int64_t i = 0; i < nope; i++) put(uk, (h * rank + r) * nope + i, first + i, r);
      for (int64_t i = 0; expanded && i < nope; i++) put(uk_rows, (h * nope + i) * rank + r, first + i, r);
      for (int64_t i = 0; i < v; i++) put(uv, (h * v + i) * rank + r, first + nope + i, r);
    }
  }
  const auto matrix = [&](const uint8_t* data, int64_t rows, int64_t cols) {
    return SpMatrix{.data = data,
                    .scale = nullptr,
                    .dtype = dtype,
                    .rows = static_cast<int32_t>(heads * rows),
                    .cols = static_cast<int32_t>(cols),
                    .exact = 0,
                    .heads = static_cast<int32_t>(heads),
                    .group = 0,
                    .narrow = out.o_proj.group != 0 && !expanded,
                    .packed = nullptr};
  };
  out.uk = matrix(uk, rank, nope);
  if (expanded) out.uk_rows = matrix(uk_rows, nope, rank);
  out.uv = matrix(uv, v, rank);
}

void load_attention(Loader& in, const ModelConfig& c, const std::string& at, bool expanded, LayerWeights& out) {
  const int64_t heads = c.num_attention_heads, hidden = c.hidden_size, q_rows = heads * c.qk_head_dim();
  if (c.q_lora_rank) {
    out.q_a_proj = in.matrix(at + "q_a_proj.weight", c.q_lora_rank, hidden);
    out.q_a_layernorm = in.vector(at + "q_a_layernorm.weight", c.q_lora_rank);
    out.q_proj = in.matrix(at + "q_b_proj.weight", q_rows, c.q_lora_rank);
  } else {
    out.q_proj = in.matrix(at + "q_proj.weight", q_rows, hidden);
  }
  out.kv_a_proj = in.matrix(at + "kv_a_proj_with_mqa.weight", c.kv_lora_rank + c.qk_rope_head_dim, hidden);
  out.kv_a_layernorm = in.vector(at + "kv_a_layernorm.weight", c.kv_lora_rank);
  const SpMatrix kv_b = in.matrix(at + "kv_b_proj.weight", heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank);
  out.o_proj = in.matrix(at + "o_proj.weight", hidden, heads * c.v_head_dim);
  if (in.status().ok()) split_kv_b(in, c, kv_b, expanded, out);
  if (!c.has_indexer) return;
  IndexerWeights& x = out.indexer;
  x.wq_b =
      in.matrix(at + "indexer.wq_b.weight", static_cast<int64_t>(c.index_n_heads) * c.index_head_dim, c.q_lora_rank);
  x.wk = in.matrix(at + "indexer.wk.weight", c.index_head_dim, hidden);
  x.weights_proj = in.exact_matrix(at + "indexer.weights_proj.weight", c.index_n_heads, hidden);
  x.k_norm_weight = in.vector(at + "indexer.k_norm.weight", c.index_head_dim);
  x.k_norm_bias = in.vector(at + "indexer.k_norm.bias", c.index_head_dim);
}

MlpWeights load_mlp(Loader& in, const std::string& at, int64_t hidden, int64_t inter) {
  return {in.matrix(at + "gate_proj.weight", inter, hidden), in.matrix(at + "up_proj.weight", inter, hidden),
          in.matrix(at + "down_proj.weight", hidden, inter)};
}

/// Whether one kernel reads both: quantised weights in the same format, or none (BF16 and F32 go together).
bool stored_alike(const SpMatrix& a, const SpMatrix& b) {
  return a.group == b.group && (a.group == 0 || a.dtype == b.dtype);
}

/// A layer's experts are multiplied together: gates and ups in one format, downs in one, all quantised or none.
void expect_alike(Loader& in, const std::string& at, const LayerWeights& w) {
  for (size_t e = 0; e < w.expert_gate.size(); e++) {
    const bool half = (w.expert_down[e].group == 0) == (w.expert_gate[0].group == 0);
    const char* other = !stored_alike(w.expert_gate[e], w.expert_gate[0])            ? "gate_proj"
                        : !stored_alike(w.expert_up[e], w.expert_gate[0])            ? "up_proj"
                        : !half || !stored_alike(w.expert_down[e], w.expert_down[0]) ? "down_proj"
                                                                                     : nullptr;
    if (other)
      return in.fail(
          unsupported(at + "experts." + std::to_string(e) + "." + other +
                      ".weight: is stored otherwise than the layer's other experts, which is not supported"));
  }
}

void load_moe(Loader& in, const ModelConfig& c, const std::string& at, LayerWeights& out) {
  out.router = in.exact_matrix(at + "gate.weight", c.n_routed_experts, c.hidden_size);
  const std::string bias = at + "gate.e_score_correction_bias";
  if (c.topk_method == TopkMethod::kNoauxTc)
    out.router_bias = in.vector(bias, c.n_routed_experts);
  else if (in.has(bias))
    in.fail(unsupported(bias + ": is present, but topk_method has no use for it"));
  for (int e = 0; e < c.n_routed_experts && in.status().ok(); e++) {
    const MlpWeights expert =
        load_mlp(in, at + "experts." + std::to_string(e) + ".", c.hidden_size, c.moe_intermediate_size);
    out.expert_gate.push_back(expert.gate);
    out.expert_up.push_back(expert.up);
    out.expert_down.push_back(expert.down);
  }
  if (in.status().ok()) expect_alike(in, at, out);
  if (c.n_shared_experts)
    out.mlp = load_mlp(in, at + "shared_experts.", c.hidden_size,
                       static_cast<int64_t>(c.n_shared_experts) * c.moe_intermediate_size);
  else if (in.has(at + "shared_experts.gate_proj.weight"))
    in.fail(invalid(at + "shared_experts.gate_proj.weight: is present, but n_shared_experts is 0"));
}

LayerWeights load_layer(Loader& in, const ModelConfig& c, int index, bool expanded) {
  LayerWeights out;
  const std::string at = "model.layers." + std::to_string(index) + ".";
  out.input_layernorm = in.vector(at + "input_layernorm.weight", c.hidden_size);
  out.post_attention_layernorm = in.vector(at + "post_attention_layernorm.weight", c.hidden_size);
  load_attention(in, c, at + "self_attn.", expanded, out);
  if (c.is_moe_layer(index))
    load_moe(in, c, at + "mlp.", out);
  else
    out.mlp = load_mlp(in, at + "mlp.", c.hidden_size, c.intermediate_size);
  return out;
}

/// The first of the MTP layers; published checkpoints have one, and repeat the main embedding and head in it.
void load_mtp(Loader& in, const ModelConfig& c, bool expanded, Weights& out) {
  const std::string at = "model.layers." + std::to_string(c.num_hidden_layers) + ".";
  if (!c.num_nextn_predict_layers || !in.any_under(at)) return;
  const std::string main_embed = "model.embed_tokens.weight", embed = at + "embed_tokens.weight",
                    main_head = c.tie_word_embeddings ? main_embed : "lm_head.weight",
                    head = at + "shared_head.head.weight";
  MtpWeights& mtp = out.mtp.emplace();
  mtp.enorm = in.vector(at + "enorm.weight", c.hidden_size);
  mtp.hnorm = in.vector(at + "hnorm.weight", c.hidden_size);
  mtp.norm = in.vector(at + "shared_head.norm.weight", c.hidden_size);
  mtp.eh_proj = in.matrix(at + "eh_proj.weight", c.hidden_size, int64_t{2} * c.hidden_size);
  if (!in.repeats(embed, main_embed)) mtp.embed = in.matrix(embed, c.vocab_size, c.hidden_size);
  if (!in.repeats(head, main_head)) mtp.head = in.head(head, c.vocab_size, c.hidden_size);
  mtp.layer = load_layer(in, c, c.num_hidden_layers, expanded);
}

}  // namespace

Result<Weights> load_weights(const ModelConfig& c, std::shared_ptr<const Checkpoint> files, bool expanded) {
  Weights out;
  Loader in(*files, c.quantization_group, out);
  out.files = files;
  out.embed = in.matrix("model.embed_tokens.weight", c.vocab_size, c.hidden_size);
  if (c.tie_word_embeddings)
    out.lm_head = as_head(out.embed);
  else
    out.lm_head = in.head("lm_head.weight", c.vocab_size, c.hidden_size);
  out.norm = in.vector("model.norm.weight", c.hidden_size);
  for (int l = 0; l < c.num_hidden_layers && in.status().ok(); l++)
    out.layers.push_back(load_layer(in, c, l, expanded));
  if (in.status().ok()) load_mtp(in, c, expanded, out);
  if (!in.status().ok()) return in.status();
  return out;
}

}  // namespace sparrow
