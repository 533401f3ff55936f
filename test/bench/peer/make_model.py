#!/usr/bin/env python3
"""Writes one random-weight DeepSeek-V3.2 model twice, with the same bf16 weights, so that two engines run the same thing:
OUT/hf/ (config.json, model.safetensors, Hugging Face's tensor names) and OUT/peer.gguf (llama.cpp's 'deepseek32').
Usage: make_model.py OUT [key=value ...]; needs numpy only."""
import json
import os
import struct
import sys

import numpy as np

DEFAULTS = dict(
    hidden=1024, layers=8, dense=1, heads=16, q_lora=512, kv_lora=256, nope=64, rope=32, v=64,
    ih=8, id=64, topk=256, experts=64, used=6, shared=1, moe=256, inter=2048, vocab=32000,
    ctx=163840, scale=2.5, theta=10000.0, eps=1e-6, seed=7,
)
BF16, F32 = 30, 0  # GGUF's numbers of the two types
ARCHITECTURE = "deepseek32"


def read_shape(pairs):
    shape = dict(DEFAULTS)
    for pair in pairs:
        key, value = pair.split("=")
        shape[key] = type(shape[key])(float(value))
    return shape


def to_bf16(x):
    """The bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Weights:
    """Tensors under both names. Matrices keep the size of what passes through them."""

    def __init__(self, shape):
        self.shape, self.random = shape, np.random.default_rng(shape["seed"])
        self.hf, self.gguf = [], []
        self.ends()
        for i in range(shape["layers"]):
            self.layer(i, f"model.layers.{i}.", f"blk.{i}.")

    def normal(self, *dims):
        return self.random.standard_normal(dims, dtype=np.float32)

    def matrix(self, *dims):
        return to_bf16(self.normal(*dims) * dims[-1] ** -0.5)

    def scale(self, n):
        return 1 + 0.1 * self.normal(n)

    def both(self, hf_name, gguf_name, values):
        self.hf.append((hf_name, values))
        self.gguf.append((gguf_name, values))

    def ends(self):
        c = self.shape
        self.both("model.embed_tokens.weight", "token_embd.weight", self.matrix(c["vocab"], c["hidden"]))
        self.both("model.norm.weight", "output_norm.weight", self.scale(c["hidden"]))
        self.both("lm_head.weight", "output.weight", self.matrix(c["vocab"], c["hidden"]))

    def layer(self, i, hf, gguf):
        c = self.shape
        self.both(hf + "input_layernorm.weight", gguf + "attn_norm.weight", self.scale(c["hidden"]))
        self.both(hf + "post_attention_layernorm.weight", gguf + "ffn_norm.weight", self.scale(c["hidden"]))
        self.attention(hf + "self_attn.", gguf)
        self.indexer(hf + "self_attn.indexer.", gguf + "indexer.")
        if i < c["dense"]:
            self.gated(hf + "mlp.", gguf + "ffn_", "", c["inter"])
        else:
            self.experts(hf + "mlp.", gguf)

    def attention(self, hf, gguf):
        c = self.shape
        heads, nope, v, rank = c["heads"], c["nope"], c["v"], c["kv_lora"]
        self.both(hf + "q_a_proj.weight", gguf + "attn_q_a.weight", self.matrix(c["q_lora"], c["hidden"]))
        self.both(hf + "q_a_layernorm.weight", gguf + "attn_q_a_norm.weight", self.scale(c["q_lora"]))
        self.both(hf + "q_b_proj.weight", gguf + "attn_q_b.weight", self.matrix(heads * (nope + c["rope"]), c["q_lora"]))
        self.both(hf + "kv_a_proj_with_mqa.weight", gguf + "attn_kv_a_mqa.weight", self.matrix(rank + c["rope"], c["hidden"]))
        self.both(hf + "kv_a_layernorm.weight", gguf + "attn_kv_a_norm.weight", self.scale(rank))
        # llama.cpp stores the two halves of kv_b apart, that of the keys transposed.
        kv_b = self.matrix(heads * (nope + v), rank)
        by_head = kv_b.reshape(heads, nope + v, rank)
        self.hf.append((hf + "kv_b_proj.weight", kv_b))
        self.gguf.append((gguf + "attn_k_b.weight", np.ascontiguousarray(by_head[:, :nope].transpose(0, 2, 1))))
        self.gguf.append((gguf + "attn_v_b.weight", np.ascontiguousarray(by_head[:, nope:])))
        self.both(hf + "o_proj.weight", gguf + "attn_output.weight", self.matrix(c["hidden"], heads * v))

    def indexer(self, hf, gguf):
        c = self.shape
        self.both(hf + "wq_b.weight", gguf + "attn_q_b.weight", self.matrix(c["ih"] * c["id"], c["q_lora"]))
        self.both(hf + "wk.weight", gguf + "attn_k.weight", self.matrix(c["id"], c["hidden"]))
        self.both(hf + "k_norm.weight", gguf + "k_norm.weight", self.scale(c["id"]))
        self.both(hf + "k_norm.bias", gguf + "k_norm.bias", self.scale(c["id"]) - 1)
        self.both(hf + "weights_proj.weight", gguf + "proj.weight", self.matrix(c["ih"], c["hidden"]))

    def gated(self, hf, gguf, suffix, width):
        hidden = self.shape["hidden"]
        for name, dims in (("gate", (width, hidden)), ("up", (width, hidden)), ("down", (hidden, width))):
            self.both(f"{hf}{name}_proj.weight", f"{gguf}{name}{suffix}.weight", self.matrix(*dims))

    def experts(self, hf, gguf):
        c = self.shape
        gate = self.matrix(c["experts"], c["hidden"])
        self.hf.append((hf + "gate.weight", gate))
        self.gguf.append((gguf + "ffn_gate_inp.weight", from_bf16(gate)))
        self.both(hf + "gate.e_score_correction_bias", gguf + "exp_probs_b.bias", 0.01 * self.normal(c["experts"]))
        wide, tall = (c["moe"], c["hidden"]), (c["hidden"], c["moe"])
        for name, dims in (("gate", wide), ("up", wide), ("down", tall)):
            all_experts = self.matrix(c["experts"], *dims)
            for k, one in enumerate(all_experts):
                self.hf.append((f"{hf}experts.{k}.{name}_proj.weight", one))
            self.gguf.append((f"{gguf}ffn_{name}_exps.weight", all_experts))
        self.gated(hf + "shared_experts.", gguf + "ffn_", "_shexp", c["moe"] * c["shared"])


def hf_config(c):
    return dict(
        architectures=["DeepseekV32ForCausalLM"], model_type="deepseek_v32", torch_dtype="bfloat16",
        vocab_size=c["vocab"], hidden_size=c["hidden"], intermediate_size=c["inter"], moe_intermediate_size=c["moe"],
        num_hidden_layers=c["layers"], num_attention_heads=c["heads"], num_key_value_heads=c["heads"],
        n_shared_experts=c["shared"], n_routed_experts=c["experts"], num_experts_per_tok=c["used"],
        routed_scaling_factor=c["scale"], scoring_func="sigmoid", topk_method="noaux_tc", norm_topk_prob=True,
        n_group=1, topk_group=1, first_k_dense_replace=c["dense"], moe_layer_freq=1,
        q_lora_rank=c["q_lora"], kv_lora_rank=c["kv_lora"], v_head_dim=c["v"],
        qk_nope_head_dim=c["nope"], qk_rope_head_dim=c["rope"],
        index_n_heads=c["ih"], index_head_dim=c["id"], index_topk=c["topk"],
        max_position_embeddings=c["ctx"], rope_theta=c["theta"], rope_scaling=None, rms_norm_eps=c["eps"],
        hidden_act="silu", tie_word_embeddings=False, attention_bias=False, num_nextn_predict_layers=0,
        bos_token_id=0, eos_token_id=1,
    )


def write_hf(folder, weights):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/config.json", "w", encoding="utf8") as f:
        json.dump(hf_config(weights.shape), f, indent=1)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, a in weights.hf:
        dtype = "BF16" if a.dtype == np.uint16 else "F32"
        header[name] = dict(dtype=dtype, shape=list(a.shape), data_offsets=[offset, offset + a.nbytes])
        offset += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{folder}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, a in weights.hf:
            f.write(a.tobytes())


def gguf_fields(c):
    of_model = {
        "block_count": c["layers"], "context_length": c["ctx"], "embedding_length": c["hidden"],
        "feed_forward_length": c["inter"], "vocab_size": c["vocab"], "leading_dense_block_count": c["dense"],
        "rope.freq_base": c["theta"], "rope.dimension_count": c["rope"],
        "attention.head_count": c["heads"], "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": c["eps"], "attention.layer_norm_epsilon": 1e-6,
        "attention.q_lora_rank": c["q_lora"], "attention.kv_lora_rank": c["kv_lora"],
        "attention.key_length": c["kv_lora"] + c["rope"], "attention.value_length": c["kv_lora"],
        "attention.key_length_mla": c["nope"] + c["rope"], "attention.value_length_mla": c["v"],
        "attention.indexer.head_count": c["ih"], "attention.indexer.key_length": c["id"],
        "attention.indexer.top_k": c["topk"],
        "expert_count": c["experts"], "expert_used_count": c["used"], "expert_shared_count": c["shared"],
        "expert_feed_forward_length": c["moe"], "expert_weights_scale": c["scale"], "expert_weights_norm": True,
        "expert_gating_func": 2,  # sigmoid
    }
    return {
        "general.architecture": ARCHITECTURE, "general.name": "peer", "general.file_type": 32, "general.alignment": 32,
        **{f"{ARCHITECTURE}.{key}": value for key, value in of_model.items()},
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["<s>", "</s>"] + [f"t{i}" for i in range(c["vocab"] - 2)],
        "tokenizer.ggml.token_type": [3, 3] + [1] * (c["vocab"] - 2), "tokenizer.ggml.merges": ["t 1"],
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1,
    }


def gguf_string(text):
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def gguf_value(v):
    if isinstance(v, bool):
        return struct.pack("<I?", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + gguf_string(v)
    if isinstance(v[0], str):
        return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(gguf_string, v))
    return struct.pack("<IIQ", 9, 5, len(v)) + np.array(v, np.int32).tobytes()


def write_gguf(path, weights):
    fields = gguf_fields(weights.shape)
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(weights.gguf), len(fields)))
        for key, value in fields.items():
            f.write(gguf_string(key) + gguf_value(value))
        offset = 0
        for name, a in weights.gguf:
            dims = b"".join(struct.pack("<Q", d) for d in a.shape[::-1])
            dtype = BF16 if a.dtype == np.uint16 else F32
            f.write(gguf_string(name) + struct.pack("<I", a.ndim) + dims + struct.pack("<IQ", dtype, offset))
            offset += a.nbytes + (-a.nbytes % 32)
        f.write(b"\0" * (-f.tell() % 32))
        for _, a in weights.gguf:
            f.write(a.tobytes() + b"\0" * (-a.nbytes % 32))


def main():
    out = sys.argv[1]
    weights = Weights(read_shape(sys.argv[2:]))
    write_hf(f"{out}/hf", weights)
    write_gguf(f"{out}/peer.gguf", weights)
    print(f"{sum(a.size for _, a in weights.hf) / 1e6:.1f}M parameters")


if __name__ == "__main__":
    main()
