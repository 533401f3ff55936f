"""Reads an exported folder (config.json, model.safetensors) back into the PyTorch model, so that what is measured is what ships."""
import json
import struct
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from model import Config, Model


def read_safetensors(path):
    """All tensors of one file as float32; BF16 and F32 only."""
    data = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body, out = json.loads(data[8 : 8 + size]), data[8 + size :], {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        raw = body[slice(*entry["data_offsets"])]
        if entry["dtype"] == "BF16":
            value = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            value = np.frombuffer(raw, np.float32).copy()
        out[name] = torch.from_numpy(value).view(entry["shape"])
    return out


def load_folder(folder):
    """Model in evaluation mode with the rounded weights, arithmetic in float32."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    model = Model(Config(**{f.name: config[f.name] for f in fields(Config)}))
    model.load_state_dict(read_safetensors(folder / "model.safetensors"))
    for layer in model.model.layers:
        layer.self_attn.strict = True
    return model.eval()


def logits(model, ids):
    """Token ids of one sequence -> logits [T, vocab], with sparse attention as the engine computes it."""
    row = torch.tensor([ids])
    with torch.no_grad():
        hidden, _ = model.hidden(row, torch.zeros_like(row), "sparse")
        return model.lm_head(hidden)[0]
