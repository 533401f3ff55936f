"""bf16, FP8 e4m3 with 128x128 scales, and safetensors files: what the goldens' checkpoints are stored in."""
import json
import struct

import numpy as np

BLOCK = 128


def to_bf16(v):
    """Round to nearest even; returns uint16 codes."""
    bits = np.asarray(v, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(codes):
    return (codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def e4m3_values():
    """Value of each of the 256 codes; NaN at 0x7F and 0xFF, no infinities."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    value = np.where(exponent > 0, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa * 2.0**-9)
    value[(code & 0x7F) == 0x7F] = np.nan
    return np.where(code & 0x80, -value, value)


def to_e4m3(v):
    """Nearest code, ties to the even mantissa, clamped to 448."""
    table = e4m3_values()
    codes = np.array([c for c in range(256) if c != 0x80 and not np.isnan(table[c])])
    order = np.argsort(table[codes], kind="stable")
    codes, values = codes[order], table[codes][order]
    v = np.clip(v, -448, 448)
    high = np.clip(np.searchsorted(values, v), 1, len(values) - 1)
    below, above = values[high - 1], values[high]
    pick_low = (v - below < above - v) | ((v - below == above - v) & (codes[high - 1] % 2 == 0))
    return np.where(pick_low, codes[high - 1], codes[high]).astype(np.uint8)


def quantize(w, power_of_two=False):
    """w [N, K] -> codes, scale_inv [ceil(N/128), ceil(K/128)] (fp32, the multiplier; 2^n if asked), and the exact values stored."""
    rows, cols = -(-w.shape[0] // BLOCK), -(-w.shape[1] // BLOCK)
    scale, codes = np.zeros((rows, cols), np.float32), np.zeros(w.shape, np.uint8)
    value = np.zeros(w.shape)
    for i in range(rows):
        for j in range(cols):
            part = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            exact = max(np.abs(w[part]).max(), 1e-4) / 448
            scale[i, j] = 2.0 ** np.ceil(np.log2(exact)) if power_of_two else exact
            codes[part] = to_e4m3(w[part] / np.float64(scale[i, j]))
            value[part] = e4m3_values()[codes[part]] * np.float64(scale[i, j])
    return codes, scale, value


DTYPES = {"F64": np.float64, "F32": np.float32, "BF16": np.uint16, "F8_E4M3": np.uint8, "I32": np.int32}


def save(path, tensors):
    """tensors: name -> (dtype name, array of the stored codes)."""
    header, body, at = {}, b"", 0
    for name, (dtype, array) in sorted(tensors.items()):
        data = np.ascontiguousarray(array.astype(DTYPES[dtype], copy=False)).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        body += data
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
