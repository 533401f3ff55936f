"""Checkpoint to Hugging Face files: python3 export.py CHECKPOINT.pt FOLDER -> config.json, generation_config.json, model.safetensors (BF16)."""
import json
import struct
import sys
from pathlib import Path

import torch


def config_of(c):
    fixed = {
        "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32", "hidden_act": "silu", "attention_bias": False, "moe_layer_freq": 1,
        "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True, "rope_scaling": None,
        "tie_word_embeddings": False, "num_nextn_predict_layers": 0, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 1,
    }
    return {**fixed, **c, "num_key_value_heads": c["num_attention_heads"]}


def save_safetensors(tensors, path):
    """Gate biases stay fp32 (a bf16 bias changes the choice of experts); everything else is rounded to bf16."""
    header, body, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        keep = name.endswith("e_score_correction_bias")
        value = tensors[name].detach().float().contiguous()
        data = (value if keep else value.to(torch.bfloat16).view(torch.int16)).numpy().tobytes()
        header[name] = {"dtype": "F32" if keep else "BF16", "shape": list(value.shape), "data_offsets": [at, at + len(data)]}
        body.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(body))


def main():
    saved, folder = torch.load(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(saved["config"]), indent=2) + "\n")
    generation = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "bos_token_id": 0, "eos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    save_safetensors(saved["state"], folder / "model.safetensors")
    print("exported", saved["stage"], saved["tokens"], "tokens")


if __name__ == "__main__":
    main()
