// Reads and checks config.json. Everything that would change the answer and is not implemented is refused by field
// name.
#include "config.h"

#include <cmath>

#include "../json.h"

namespace sparrow {
namespace {

/// Collects the first error, so that reading stays one line a field.
class Reader {
 public:
  Reader(const Json& root, Status& status) : root_(root), status_(status) {}

  void fail(const std::string& field, const std::string& why) {
    if (status_.ok()) status_ = invalid("config.json: " + field + " " + why);
  }
  void refuse(const std::string& field, const std::string& why) {
    if (status_.ok()) status_ = unsupported("config.json: " + field + " " + why);
  }

  const Json* get(const char* field) const {
    const Json* found = root_.find(field);
    return found && !found->is(Json::Kind::kNull) ? found : nullptr;
  }

  int integer(const char* field, int low, int high, int fallback) {
    const Json* found = get(field);
    if (!found) return fallback;
    return checked(field, found, low, high);
  }
  int integer(const char* field, int low, int high) {
    const Json* found = get(field);
    if (!found) fail(field, "is missing");
    return found ? checked(field, found, low, high) : low;
  }

  double real(const char* field, double low, double high, double fallback) {
    return get(field) ? real(field, low, high) : fallback;
  }
  double real(const char* field, double low, double high) {
    const Json* found = get(field);
    if (!found) return fail(field, "is missing"), low;
    if (!found->is(Json::Kind::kNumber) || !(found->number >= low && found->number <= high)) {
      fail(field, "is no number from " + std::to_string(low) + " to " + std::to_string(high));
      return low;
    }
    return found->number;
  }

  bool boolean(const char* field, bool fallback) {
    const Json* found = get(field);
    if (found && !found->is(Json::Kind::kBool)) fail(field, "is neither true nor false");
    return found ? found->boolean : fallback;
  }

  std::string text(const char* field, const char* fallback) {
    const Json* found = get(field);
    if (found && !found->is(Json::Kind::kString)) fail(field, "is no string");
    return found ? found->string : fallback;
  }

 private:
  int checked(const char* field, const Json* found, int low, int high) {
    if (!found->is(Json::Kind::kNumber) || found->number != std::floor(found->number) || found->number < low ||
        found->number > high) {
      fail(field, "is no integer from " + std::to_string(low) + " to " + std::to_string(high));
      return low;
    }
    return static_cast<int>(found->number);
  }

  const Json& root_;
  Status& status_;
};

void read_rope(const Json& root, ModelConfig& c, Status& status) {
  Reader top(root, status);
  const Json* nested = top.get("rope_parameters");
  const Json* scaling = nested ? nested : top.get("rope_scaling");
  c.rope_theta = top.real("rope_theta", 1, 1e9, 10000);
  if (!scaling) return;
  if (!scaling->is(Json::Kind::kObject)) return top.fail("rope_scaling", "is no object");
  Reader r(*scaling, status);
  c.rope_theta = r.real("rope_theta", 1, 1e9, c.rope_theta);
  const std::string type = r.text("rope_type", r.text("type", r.get("factor") ? "" : "default").c_str());
  if (type == "default") return;
  if (type != "yarn")
    return top.refuse("rope_scaling.type", "'" + type + "' is not supported; supported: yarn, default");
  if (c.rope_theta <= 1) return top.fail("rope_theta", "must exceed 1 with YaRN");
  c.rope_scaling.present = true;
  c.rope_scaling.factor = r.real("factor", 1, 1e4, 1);
  c.rope_scaling.beta_fast = r.real("beta_fast", 1e-3, 1e4, 32);
  c.rope_scaling.beta_slow = r.real("beta_slow", 1e-3, 1e4, 1);
  c.rope_scaling.mscale = r.real("mscale", 0, 100, 1);
  c.rope_scaling.mscale_all_dim = r.real("mscale_all_dim", 0, 100, 0);
  c.rope_scaling.original_max_position_embeddings = r.integer("original_max_position_embeddings", 1, 1 << 24, 4096);
  if (r.get("attention_factor")) top.refuse("rope_scaling.attention_factor", "is not supported");
  if (!r.boolean("truncate", true)) top.refuse("rope_scaling.truncate", "false is not supported");
  if (c.has_indexer && c.rope_magnitude() != 1)
    top.refuse("rope_scaling.mscale", "differs from mscale_all_dim, which is not supported together with an indexer");
}

void read_attention(Reader& r, ModelConfig& c) {
  c.num_attention_heads = r.integer("num_attention_heads", 1, 1024);
  c.q_lora_rank = r.integer("q_lora_rank", 1, 1 << 16, 0);
  c.kv_lora_rank = r.integer("kv_lora_rank", 1, 1 << 16);
  c.qk_nope_head_dim = r.integer("qk_nope_head_dim", 1, 4096);
  c.qk_rope_head_dim = r.integer("qk_rope_head_dim", 2, 1024);
  c.v_head_dim = r.integer("v_head_dim", 1, 4096);
  if (c.qk_rope_head_dim % 2) r.fail("qk_rope_head_dim", "is odd");
  if (r.boolean("attention_bias", false)) r.refuse("attention_bias", "true is not supported");
  if (!r.boolean("rope_interleave", true)) r.refuse("rope_interleave", "false is not supported");
  if (!r.boolean("use_mla", true)) r.refuse("use_mla", "false is not supported");
  if (!c.has_indexer) return;
  if (!c.q_lora_rank) r.refuse("q_lora_rank", "null is not supported together with an indexer");
  c.index_n_heads = r.integer("index_n_heads", 1, 1024);
  c.index_head_dim = r.integer("index_head_dim", 1, 4096);
  c.index_topk = r.integer("index_topk", 1, 1 << 20);
  c.indexer_rope_interleave = r.boolean("indexer_rope_interleave", false);
  if (c.index_head_dim < c.qk_rope_head_dim) r.fail("index_head_dim", "is smaller than qk_rope_head_dim");
  if (r.integer("index_topk_freq", 1, 1024, 1) != 1)
    r.refuse("index_topk_freq", "over 1 (index sharing) is not supported");
  for (const char* field : {"indexer_types", "index_topk_pattern"}) {
    if (r.get(field)) r.refuse(field, "(index sharing) is not supported");
  }
}

/// How experts are chosen and weighed; what a file leaves out is as the architecture's own code has it.
void read_gate(Reader& r, ModelConfig& c) {
  const bool v2 = c.architecture == "DeepseekV2ForCausalLM";
  const std::string scoring = r.text("scoring_func", v2 ? "softmax" : "sigmoid");
  const std::string method = r.text("topk_method", v2 ? "greedy" : "noaux_tc");
  if (scoring == "sigmoid")
    c.scoring_func = ScoringFunc::kSigmoid;
  else if (scoring == "softmax")
    c.scoring_func = ScoringFunc::kSoftmax;
  else
    r.refuse("scoring_func", "'" + scoring + "' is not supported; supported: sigmoid, softmax");
  if (method == "noaux_tc")
    c.topk_method = TopkMethod::kNoauxTc;
  else if (method == "group_limited_greedy")
    c.topk_method = TopkMethod::kGroupLimitedGreedy;
  else if (method == "greedy")
    c.topk_method = TopkMethod::kGreedy;
  else
    r.refuse("topk_method", "'" + method + "' is not supported; supported: noaux_tc, group_limited_greedy, greedy");
  if (c.topk_method != TopkMethod::kGreedy) {
    c.n_group = r.integer("n_group", 1, 256);
    c.topk_group = r.integer("topk_group", 1, 256);
  }
  c.norm_topk_prob = r.boolean("norm_topk_prob", !v2);
  c.routed_scaling_factor =
      v2 ? r.real("routed_scaling_factor", 1e-6, 1e6, 1) : r.real("routed_scaling_factor", 1e-6, 1e6);
  // V2's own gate either normalises or scales, never both, and has nothing to normalise with one expert.
  if (!v2 || c.topk_method == TopkMethod::kNoauxTc || !c.norm_topk_prob) return;
  if (c.num_experts_per_tok > 1)
    c.routed_scaling_factor = 1;
  else
    c.norm_topk_prob = false;
}

void read_experts(Reader& r, ModelConfig& c) {
  const bool v2 = c.architecture == "DeepseekV2ForCausalLM";
  c.n_routed_experts = r.integer("n_routed_experts", 0, 4096, 0);
  c.intermediate_size = r.integer("intermediate_size", 1, 1 << 20);
  if (r.boolean("mlp_bias", false)) r.refuse("mlp_bias", "true is not supported");
  if (!c.n_routed_experts) return;
  c.first_k_dense_replace =
      v2 ? r.integer("first_k_dense_replace", 0, 1024, 0) : r.integer("first_k_dense_replace", 0, 1024);
  c.moe_layer_freq = r.integer("moe_layer_freq", 1, 1024, 1);
  c.moe_intermediate_size = r.integer("moe_intermediate_size", 1, 1 << 20);
  c.n_shared_experts = r.integer("n_shared_experts", 0, 64, 0);
  c.num_experts_per_tok = r.integer("num_experts_per_tok", 1, 64);
  read_gate(r, c);
  if (c.n_routed_experts % c.n_group) r.fail("n_group", "does not divide n_routed_experts");
  if (c.topk_group > c.n_group) r.fail("topk_group", "exceeds n_group");
  if (c.num_experts_per_tok > c.n_routed_experts / c.n_group * c.topk_group)
    r.fail("num_experts_per_tok", "exceeds the experts of topk_group groups");
  if (c.topk_method == TopkMethod::kNoauxTc && c.n_group > 1 && c.n_routed_experts / c.n_group < 2)
    r.fail("n_group", "leaves fewer than two experts a group");
}

void read_quantization(Reader& r, ModelConfig& c, Status& status) {
  const Json* found = r.get("quantization_config");
  if (!found) return;
  if (!found->is(Json::Kind::kObject)) return r.fail("quantization_config", "is no object");
  Reader q(*found, status);
  c.quantization_group = q.integer("group_size", 32, 128, 0);
  if (c.quantization_group % 32) r.fail("quantization_config.group_size", "is no multiple of 32");
}

Status read_eos(const Json* field, ModelConfig& c) {
  if (!field || field->is(Json::Kind::kNull)) return ok_status();
  std::vector<Json> one;
  if (field->is(Json::Kind::kNumber)) one.push_back(*field);
  c.eos_token_ids.clear();
  for (const Json& id : field->is(Json::Kind::kArray) ? field->items : one) {
    if (!id.is(Json::Kind::kNumber) || id.number < 0 || id.number >= c.vocab_size ||
        id.number != std::floor(id.number)) {
      return invalid("config.json: eos_token_id is no token of the vocabulary");
    }
    c.eos_token_ids.push_back(static_cast<int32_t>(id.number));
  }
  return ok_status();
}

/// YaRN's growth of attention with the context: 0.1 size ln(factor) + 1.
double yarn_growth(const RopeScaling& y, double size) {
  return y.present && y.factor > 1 ? 0.1 * size * std::log(y.factor) + 1 : 1.0;
}

}  // namespace

double ModelConfig::softmax_scale() const {
  const double m = yarn_growth(rope_scaling, rope_scaling.mscale_all_dim);
  return m * m / std::sqrt(static_cast<double>(qk_head_dim()));
}

double ModelConfig::rope_magnitude() const {
  return yarn_growth(rope_scaling, rope_scaling.mscale) / yarn_growth(rope_scaling, rope_scaling.mscale_all_dim);
}

Result<ModelConfig> parse_config(std::string_view config_text, std::string_view generation_text) {
  Result<Json> parsed = parse_json(config_text);
  if (!parsed.ok()) return invalid("config.json: " + parsed.status().message);
  const Json& root = parsed.value();
  ModelConfig c;
  Status status;
  Reader r(root, status);
  const Json* names = r.get("architectures");
  c.architecture = names && !names->items.empty() ? names->items[0].string : "";
  c.has_indexer = c.architecture == "DeepseekV32ForCausalLM";
  if (!c.has_indexer && c.architecture != "DeepseekV3ForCausalLM" && c.architecture != "DeepseekV2ForCausalLM") {
    r.refuse("architectures", "'" + c.architecture +
                                  "' is not supported; supported: DeepseekV32ForCausalLM, DeepseekV3ForCausalLM, "
                                  "DeepseekV2ForCausalLM");
  }
  c.vocab_size = r.integer("vocab_size", 2, 1 << 22);
  c.hidden_size = r.integer("hidden_size", 1, 1 << 20);
  c.num_hidden_layers = r.integer("num_hidden_layers", 1, 1024);
  c.max_position_embeddings = r.integer("max_position_embeddings", 1, 1 << 24);
  c.rms_norm_eps = r.real("rms_norm_eps", 1e-12, 1, 1e-6);
  c.tie_word_embeddings = r.boolean("tie_word_embeddings", false);
  if (const std::string act = r.text("hidden_act", "silu"); act != "silu")
    r.refuse("hidden_act", "'" + act + "' is not supported; supported: silu");
  read_attention(r, c);
  read_experts(r, c);
  read_quantization(r, c, status);
  if (status.ok()) read_rope(root, c, status);
  if (status.ok()) status = read_eos(root.find("eos_token_id"), c);
  if (status.ok() && !generation_text.empty()) {
    Result<Json> generation = parse_json(generation_text);
    if (!generation.ok()) return invalid("generation_config.json: " + generation.status().message);
    status = read_eos(generation.value().find("eos_token_id"), c);
  }
  if (!status.ok()) return status;
  return c;
}

}  // namespace sparrow
