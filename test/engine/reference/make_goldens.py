"""Writes the goldens: python3 make_goldens.py [NAME ...]. Each is a small random checkpoint in Hugging Face form and what the
float64 reference says of it. Same seed, same bytes."""
import json
import sys
from pathlib import Path

import numpy as np

import formats
from model import Reference, yarn

OUT = Path(__file__).parent.parent / "goldens"
YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
BASE = {
    "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32", "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "intermediate_size": 80, "moe_intermediate_size": 24, "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_routed_experts": 8, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True,
    "routed_scaling_factor": 2.5, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False,
    "tie_word_embeddings": False, "max_position_embeddings": 512, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 8, "eos_token_id": 1, "torch_dtype": "bfloat16",
}
V3 = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "index_n_heads": None, "index_head_dim": None, "index_topk": None}
# What the relatives' files carry beside the fields that matter.
IGNORED = {"aux_loss_alpha": 0.001, "seq_aux": True, "ep_size": 1, "pretraining_tp": 1, "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
           "bos_token_id": 0, "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"}, "transformers_version": "4.33.1"}
V2 = {**V3, **IGNORED, "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False,
      "rope_scaling": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707}}
CASES = {
    "v3_yarn_no_dense": {**V3, "rope_scaling": YARN, "first_k_dense_replace": 0, "n_group": 4, "topk_group": 2, "tokens": 40},
    "v32_groups_yarn": {"rope_scaling": YARN, "n_group": 4, "topk_group": 2, "num_hidden_layers": 3, "tokens": 96},
    "v32_plain_two_pages": {"first_k_dense_replace": 0, "index_topk": 16, "tokens": 150},
    "v3_no_q_lora_fp8": {**V3, "q_lora_rank": None, "fp8": True, "kv_lora_rank": 136, "intermediate_size": 160, "tokens": 32},
    "v32_fp8_sharded": {"fp8": True, "shards": 2, "hidden_size": 144, "n_group": 4, "topk_group": 2, "tokens": 72},
    # What the others leave open: biases near 12 (bf16 would change the choice), tiny index keys (k_norm's own eps shows), power-of-two scales,
    # two shared experts, weights that are not normalised, nested rope fields.
    "v32_biases_near_12": {"fp8": "ue8m0", "router_bias": 12.0, "index_key_size": 0.003, "n_shared_experts": 2, "norm_topk_prob": False, "n_group": 4, "topk_group": 2,
                           "num_experts_per_tok": 3, "n_routed_experts": 16, "rms_norm_eps": 1e-5, "aliases": True, "rope_scaling": YARN, "tokens": 80},
    # The shapes of DeepSeek-V2-Lite, DeepSeek-V2 and Moonlight-16B-A3B, then what none of the three has.
    "v2_lite": {**V2, "q_lora_rank": None, "routed_scaling_factor": 1.0, "n_shared_experts": 2, "num_experts_per_tok": 3, "tokens": 36},
    "v2_groups": {**V2, "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0, "n_routed_experts": 12, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3,
                  "first_k_dense_replace": 0, "moe_layer_freq": 2, "tokens": 36},
    "v2_normalised_tied": {**V2, "norm_topk_prob": True, "routed_scaling_factor": 16.0, "n_shared_experts": None, "n_group": None, "topk_group": None, "rope_scaling": None,
                           "tie_word_embeddings": True, "tokens": 36},
    "v3_moonlight": {**V3, **IGNORED, "q_lora_rank": None, "n_shared_experts": 2, "num_experts_per_tok": 3, "routed_scaling_factor": 2.446, "rms_norm_eps": 1e-5,
                     "rope_theta": 50000.0, "num_nextn_predict_layers": 0, "bf16_bias": True, "tokens": 36},
    "v3_scaled_cosines": {**V3, "rope_theta": 50000.0, "norm_topk_prob": False, "tie_word_embeddings": True, "tokens": 36,
                          "rope_scaling": {"type": "yarn", "factor": 32, "original_max_position_embeddings": 64, "beta_fast": 1, "beta_slow": 1, "mscale": 1.0}},
    "v32_interleaved_tied": {"indexer_rope_interleave": True, "v_head_dim": 24, "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "tokens": 70},
}


def shapes(c):
    """Name -> (shape, kind) of every tensor of the architecture."""
    h, heads = c["hidden_size"], c["num_attention_heads"]
    nope, rope, v, rank, ql = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"], c["q_lora_rank"]
    out = {"model.embed_tokens.weight": ((c["vocab_size"], h), "table"), "model.norm.weight": ((h,), "gain")}
    if not c["tie_word_embeddings"]:
        out["lm_head.weight"] = ((c["vocab_size"], h), "table")
    mlp = lambda at, inner: {f"{at}gate_proj.weight": ((inner, h), "linear"), f"{at}up_proj.weight": ((inner, h), "linear"), f"{at}down_proj.weight": ((h, inner), "linear")}
    for l in range(c["num_hidden_layers"]):
        at = f"model.layers.{l}."
        out |= {at + "input_layernorm.weight": ((h,), "gain"), at + "post_attention_layernorm.weight": ((h,), "gain")}
        a = at + "self_attn."
        out |= {a + "q_a_proj.weight": ((ql, h), "linear"), a + "q_a_layernorm.weight": ((ql,), "gain"), a + "q_b_proj.weight": ((heads * (nope + rope), ql), "sharp")} if ql else {a + "q_proj.weight": ((heads * (nope + rope), h), "sharp")}
        out |= {a + "kv_a_proj_with_mqa.weight": ((rank + rope, h), "linear"), a + "kv_a_layernorm.weight": ((rank,), "gain"), a + "kv_b_proj.weight": ((heads * (nope + v), rank), "linear"), a + "o_proj.weight": ((h, heads * v), "linear")}
        if c["index_topk"]:
            d = c["index_head_dim"]
            out |= {a + "indexer.wq_b.weight": ((c["index_n_heads"] * d, ql), "linear"), a + "indexer.wk.weight": ((d, h), "linear"), a + "indexer.weights_proj.weight": ((c["index_n_heads"], h), "table"),
                    a + "indexer.k_norm.weight": ((d,), "gain"), a + "indexer.k_norm.bias": ((d,), "bias")}
        m = at + "mlp."
        if l < c["first_k_dense_replace"] or l % c["moe_layer_freq"]:
            out |= mlp(m, c["intermediate_size"])
            continue
        out |= {m + "gate.weight": ((c["n_routed_experts"], h), "table")}
        out |= {m + "gate.e_score_correction_bias": ((c["n_routed_experts"],), "router_bias")} if c["topk_method"] == "noaux_tc" else {}
        for e in range(c["n_routed_experts"]):
            out |= mlp(f"{m}experts.{e}.", c["moe_intermediate_size"])
        out |= mlp(m + "shared_experts.", c["n_shared_experts"] * c["moe_intermediate_size"]) if c["n_shared_experts"] else {}
    return out


def draw(rng, shape, kind, router_bias):
    """Never N(0, 0.02): attention would be uniform and selections all ties. Router biases are mostly negative unless a case asks."""
    noise = rng.standard_normal(shape)
    if kind == "gain":
        return 1 + 0.1 * noise
    if kind == "bias":
        return 0.3 * noise
    if kind == "router_bias":
        return router_bias + 0.4 * noise
    return noise * shape[-1] ** -0.5 * (2.5 if kind == "sharp" else 1.0) * (1.5 if kind == "table" else 1.0)


def store(rng, c, fp8, router_bias, index_key_size, bf16_bias):
    """The checkpoint's tensors as stored, and the exact values they stand for."""
    stored, value = {}, {}
    for name, (shape, kind) in shapes(c).items():
        w = draw(rng, shape, kind, router_bias) * (index_key_size if name.endswith("indexer.wk.weight") else 1)
        if kind == "router_bias" and not bf16_bias:
            stored[name] = ("F32", w.astype(np.float32))
            value[name] = stored[name][1].astype(np.float64)
        elif fp8 and kind in ("linear", "sharp"):
            codes, scale, value[name] = formats.quantize(w, fp8 == "ue8m0")
            stored[name], stored[name + "_scale_inv"] = ("F8_E4M3", codes), ("F32", scale)
        else:
            codes = formats.to_bf16(w)
            stored[name], value[name] = ("BF16", codes), formats.from_bf16(codes)
    return stored, value


def make(name, changes):
    changes = dict(changes)
    tokens, fp8, shards = changes.pop("tokens"), changes.pop("fp8", False), changes.pop("shards", 1)
    router_bias, index_key_size, aliases = changes.pop("router_bias", -0.6), changes.pop("index_key_size", 1), changes.pop("aliases", False)
    bf16_bias = changes.pop("bf16_bias", False)
    c = {**BASE, **changes}
    rng = np.random.default_rng(sum(name.encode()))
    stored, value = store(rng, c, fp8, router_bias, index_key_size, bf16_bias)
    ids = rng.integers(0, c["vocab_size"], tokens)
    reference = Reference({k: v for k, v in c.items() if v is not None}, value)
    logits = reference.forward(ids)
    shorter = Reference(reference.c, value).forward(ids[: tokens // 2])
    assert np.abs(shorter - logits[: tokens // 2]).max() < 1e-9, "not causal"
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    config = {k: v for k, v in c.items() if v is not None or k in ("q_lora_rank", "rope_scaling", "n_group", "topk_group", "n_shared_experts")}
    if fp8:
        config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
        config["quantization_config"] |= {"scale_fmt": fp8} if isinstance(fp8, str) else {}
    if aliases:
        config["dtype"] = config.pop("torch_dtype")
        config["rope_parameters"] = {"rope_theta": config.pop("rope_theta"), **config.pop("rope_scaling")}
        config["rope_parameters"]["rope_type"] = config["rope_parameters"].pop("type")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    write_checkpoint(folder, stored, shards)
    golden = {"ids": ("I32", ids), "logits": ("F32", logits)}
    keep = [0, 1, tokens // 2, tokens - 2, tokens - 1]
    for tap, rows in reference.taps.items():
        whole = tap.endswith(("index_chosen", "index_margin", "expert_ids"))
        golden[tap] = ("F32", rows if whole else rows[keep])
    golden["tap_rows"] = ("I32", np.array(keep))
    formats.save(folder / "golden.safetensors", golden)
    print(name, "logit sd %.2f" % logits.std())


def write_checkpoint(folder, stored, shards):
    if shards == 1:
        return formats.save(folder / "model.safetensors", stored)
    names, where = sorted(stored), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {n: stored[n] for n in names[i::shards]}
        formats.save(folder / file, part)
        where |= {n: file for n in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}, sort_keys=True) + "\n")


def check_published_constants():
    """The released model's rotation table and softmax scale, as computed by hand from the report's formulas."""
    f, m, size = yarn({"qk_rope_head_dim": 64, "rope_scaling": {**YARN, "original_max_position_embeddings": 4096}})
    want = {0: 1, 1: 0.7498942093, 10: 0.05623413252, 11: 0.03900692657, 16: 0.0055, 23: 3.33380358e-5, 31: 3.33380358e-6}
    assert all(abs(f[i] / g - 1) < 1e-8 for i, g in want.items()) and abs(192**-0.5 * m - 0.13523378) < 1e-8 and size == 1
    _, m, size = yarn({"qk_rope_head_dim": 64, "rope_scaling": {**V2["rope_scaling"], "original_max_position_embeddings": 4096}})
    assert abs(192**-0.5 * m - 0.11472139) < 1e-8 and size == 1


if __name__ == "__main__":
    check_published_constants()
    for name, changes in CASES.items():
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            make(name, changes)
