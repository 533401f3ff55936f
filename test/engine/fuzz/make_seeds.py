"""Writes the sound seeds of the fuzz corpus: python3 make_seeds.py. One tiny model that holds every dtype the loader knows.
Same seed, same bytes. What the fuzzers found lies beside them and isn't made here."""
import json
import struct
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "reference"))
import formats
from make_goldens import BASE, YARN, draw, shapes

CORPUS = HERE / "corpus"
GROUP = 32
CONFIG = {
    **BASE, "vocab_size": 4, "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": 6, "kv_lora_rank": 4, "qk_nope_head_dim": 3,
    "qk_rope_head_dim": 2, "v_head_dim": 3, "intermediate_size": 5, "moe_intermediate_size": 3, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "index_n_heads": 2,
    "index_head_dim": 4, "index_topk": 2, "max_position_embeddings": 64, "rope_scaling": YARN, "eos_token_id": [1, 2], "quantization_config": {"group_size": GROUP},
}
DENSE = {"architectures": ["DeepseekV3ForCausalLM"], "q_lora_rank": None, "topk_method": "greedy", "scoring_func": "softmax", "rope_scaling": None, "norm_topk_prob": False,
         "tie_word_embeddings": True, "n_shared_experts": None, "index_topk": None, "eos_token_id": 1, "n_group": None}
# By the end of a name: how that weight is stored; BF16 otherwise.
STORED = {"q_a_proj.weight": "F8_E4M3", "kv_b_proj.weight": "F8_E4M3", "q_b_proj.weight": "I8", "o_proj.weight": "U8", "indexer.wk.weight": "F32", "mlp.up_proj.weight": "F8_E4M3", "norm.weight": "F32"}
# A layer's experts are stored alike.
for e in range(CONFIG["n_routed_experts"]):
    STORED |= {f"experts.{e}.gate_proj.weight": "I8", f"experts.{e}.up_proj.weight": "I8", f"experts.{e}.down_proj.weight": "U8"}
formats.DTYPES |= {"I8": np.int8, "U8": np.uint8}


def grouped(w, top):
    """int codes within -top..top and one multiplier for each row and GROUP columns."""
    groups = -(-w.shape[1] // GROUP)
    scale = np.stack([np.abs(w[:, g * GROUP : (g + 1) * GROUP]).max(1) / top for g in range(groups)], 1)
    return np.rint(w / np.repeat(scale, GROUP, 1)[:, : w.shape[1]]).clip(-top, top).astype(np.int8), scale


def store(name, w, kind):
    dtype = next((d for end, d in STORED.items() if name.endswith(end)), "F32" if kind == "router_bias" else "BF16")
    if dtype == "F32":
        return {name: (dtype, w.astype(np.float32))}
    if dtype == "BF16":
        return {name: (dtype, formats.to_bf16(w))}
    if dtype == "F8_E4M3":
        codes, scale, _ = formats.quantize(w)
        return {name: (dtype, codes), name + "_scale_inv": ("F32", scale)}
    codes, scale = grouped(w, 127 if dtype == "I8" else 7)
    if dtype == "U8":
        even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
        codes = ((even[:, ::2] + 8) | (even[:, 1::2] + 8) << 4).astype(np.uint8)
    return {name: (dtype, codes), name + "_scale": ("BF16", formats.to_bf16(scale))}


def edited(stored, change):
    """The checkpoint's bytes after `change` of header and body."""
    path = CORPUS / "checkpoint" / "edited.safetensors"
    formats.save(path, stored)
    data = path.read_bytes()
    path.unlink()
    at = 8 + struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:at]), bytearray(data[at:])
    change(header, body)
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


ROUTER_BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


def first(header, dtype):
    return next(t for t in header.values() if t["dtype"] == dtype)


def poke(dtype, code):
    return lambda header, body: body.__setitem__(first(header, dtype)["data_offsets"][0], code)


# What must be refused, each by another check.
DAMAGED = {
    "fp8_nan": poke("F8_E4M3", 0x7F),
    "int8_lowest": poke("I8", 0x80),
    "bias_nan": lambda h, b: b.__setitem__(slice(h[ROUTER_BIAS]["data_offsets"][0], h[ROUTER_BIAS]["data_offsets"][0] + 4), struct.pack("<f", np.nan)),
    "overlap": lambda h, b: h["lm_head.weight"].update(data_offsets=h["model.embed_tokens.weight"]["data_offsets"]),
    "shape_that_wraps": lambda h, b: h["lm_head.weight"].update(shape=[2**32, 2**30, 2, 16]),
    "offset_past_the_end": lambda h, b: h["lm_head.weight"].update(data_offsets=[len(b) - 60, len(b) + 4]),
}


def main():
    rng = np.random.default_rng(3)
    stored = {}
    for name, (shape, kind) in shapes(CONFIG, False).items():
        stored |= store(name, draw(rng, shape, kind, -0.6), kind)
    names = sorted(stored)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for folder in ("json", "config", "index", "checkpoint"):
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
    formats.save(CORPUS / "checkpoint" / "tiny.safetensors", stored)
    for file, part in halves.items():
        formats.save(CORPUS / "checkpoint" / file, {n: stored[n] for n in part})
    for name, change in DAMAGED.items():
        (CORPUS / "checkpoint" / name).write_bytes(edited(stored, change))
    (CORPUS / "checkpoint" / "length_that_lies").write_bytes(b"\xff" * 7 + b"\x7f{}")
    where = {n: file for file, part in halves.items() for n in part}
    (CORPUS / "index" / "tiny.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    (CORPUS / "config" / "tiny.json").write_text(json.dumps(CONFIG))
    (CORPUS / "config" / "dense.json").write_text(json.dumps({k: v for k, v in {**CONFIG, **DENSE}.items()}))
    (CORPUS / "config" / "generation.json").write_text(json.dumps(CONFIG) + "\0" + json.dumps({"eos_token_id": [3]}))
    nested = {**CONFIG, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, **YARN}}
    (CORPUS / "config" / "nested.json").write_text(json.dumps(nested))
    (CORPUS / "json" / "every_kind.json").write_text('{"a":[null,true,false,-1.5e3,"\\u00e9\\ud83c\\udf89\\n"],"b":{"c":{}}, "d":[[]]}')

    base_of_one = {**CONFIG, "rope_theta": 1}
    (CORPUS / "config" / "yarn_base_of_one.json").write_text(json.dumps(base_of_one))
    largest = {**CONFIG, "hidden_size": 1 << 20, "vocab_size": 1 << 22, "num_hidden_layers": 1024, "n_routed_experts": 4096, "max_position_embeddings": 1 << 24}
    (CORPUS / "config" / "terabytes.json").write_text(json.dumps(largest))
    (CORPUS / "json" / "deep").write_text("[" * 200)
    (CORPUS / "json" / "lone_surrogates").write_text('["\\udc00","\\ud800x"]')
    (CORPUS / "json" / "repeated_key").write_text('{"a":1,"a":2}')


main()
