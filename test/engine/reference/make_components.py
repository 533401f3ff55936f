"""Writes goldens/components: inputs and float64 answers of single operations, with the traps that random models rarely reach.
Same seeds, same bytes. Dyadic matrices (multiples of 1/8) have products whose sums are exact in fp32 in any order."""
import numpy as np

import formats
from make_goldens import OUT, YARN, check_published_constants
from model import choose_experts, layer_norm, rms, rotate, silu, top_k, yarn


def f32(v):
    return ("F32", np.asarray(v, np.float32))


def i32(v):
    return ("I32", np.asarray(v, np.int32))


def bf16(v):
    return ("BF16", formats.to_bf16(v))


def stored(v):
    """float64 values that fp32 holds exactly, so that the answer belongs to the stored input."""
    return np.asarray(v, np.float32).astype(np.float64)


def dyadic(rng, *shape):
    return rng.integers(-4, 5, shape) / 8.0


def numbers():
    """Every finite e4m3 code (NaN codes, which no checkpoint may hold, are 0), and bf16 from the smallest subnormal to the largest."""
    codes = np.arange(256, dtype=np.uint8)
    codes[(codes & 0x7F) == 0x7F] = 0
    wide = np.array([0x0001, 0x8001, 0x007F, 0x0080, 0x8080, 0x3F80, 0xBF80, 0x3F81, 0x4049, 0xC2F7, 0x7F7F, 0xFF7F, 0x0000, 0x8000, 0x3DCC, 0x7E00], np.uint16)
    return {"e4m3.codes": ("F8_E4M3", codes.reshape(16, 16)), "e4m3.values": f32(formats.e4m3_values()[codes].reshape(16, 16)),
            "bf16.codes": ("BF16", wide.reshape(1, 16)), "bf16.values": f32(formats.from_bf16(wide).reshape(1, 16))}


def rope():
    rng = np.random.default_rng(12)
    positions = np.array([0, 1, 2, 63, 64, 1000, 4095, 4096])
    c = {"qk_rope_head_dim": 64, "rope_scaling": {**YARN, "original_max_position_embeddings": 4096}}
    f, correction, _ = yarn(c)
    x = stored(rng.standard_normal((8, 3, 64)))
    angle = positions[:, None] * f
    interleaved, half_split = rotate(x, f, False, positions), rotate(x, f, True, positions)
    order = np.arange(64).reshape(2, 32).T.reshape(-1)
    assert np.array_equal(rotate(x[..., order], f, False, positions), half_split[..., order]), "one layout is a permutation of the other"
    return {"frequencies.yarn": ("F64", f), "frequencies.plain": ("F64", yarn({"qk_rope_head_dim": 64})[0]), "softmax_scale": ("F64", np.array([192**-0.5 * correction])),
            "positions": i32(positions), "table": f32(np.concatenate([np.cos(angle), np.sin(angle)], -1)), "x": f32(x),
            "interleaved": f32(interleaved), "half_split": f32(half_split)}


def norms():
    """Rows: ordinary, mean 1000, tiny (eps decides), all zero, huge, one outlier."""
    rng = np.random.default_rng(13)
    x = rng.standard_normal((6, 48))
    x[1] += 1000.0
    x[2] *= 1e-4
    x[3] = 0.0
    x[4] *= 1e4
    x[5, 17] = 3e4
    x, gain, bias = stored(x), stored(1 + 0.1 * rng.standard_normal(48)), stored(rng.standard_normal(48))
    return {"x": f32(x), "gain": f32(gain), "bias": f32(bias), "rms_1e-6": f32(rms(x, gain, 1e-6)), "rms_1e-5": f32(rms(x, gain, 1e-5)),
            "layer_norm": f32(layer_norm(x, gain, bias))}


def gate():
    """params: groups, kept groups, top k, normalise, sigmoid, a group scores by its two best."""
    rng = np.random.default_rng(14)
    late_winner = np.full(16, -2.0)
    late_winner[[12, 13]] = 3.0
    one_good = np.full(16, -3.0)
    one_good[[0, 4, 5]] = [4.0, 2.0, 2.0]  # group 0 has the best expert, group 1 the best pair
    noise = lambda n, size=1.0: size * rng.standard_normal(n)
    cases = {
        "plain": (noise(16), noise(16, 0.1), 1, 1, 4, 1, 1, 1),
        "no_bias": (noise(16), None, 1, 1, 4, 1, 1, 1),
        "groups": (noise(32), noise(32, 0.1), 8, 4, 6, 1, 1, 1),
        "negative_bias": (noise(32), noise(32, 0.05) - 1.5, 8, 4, 6, 1, 1, 1),  # a mask of 0 would prefer experts of dropped groups
        "bias_near_12": (noise(32), noise(32, 0.5) + 12, 8, 4, 6, 1, 1, 1),
        "all_tied": (np.zeros(16), np.zeros(16), 4, 2, 4, 1, 1, 1),
        "late_group": (late_winner, np.zeros(16), 4, 1, 2, 1, 1, 1),
        "best_pair": (one_good, np.zeros(16), 4, 1, 2, 1, 1, 1),
        "best_single": (one_good, None, 4, 1, 2, 0, 0, 0),
        "unnormalised": (noise(16), noise(16, 0.1), 1, 1, 4, 0, 1, 1),
        "softmax": (noise(24, 3), None, 4, 2, 3, 0, 0, 0),
        "softmax_large": (noise(16) + 200, None, 1, 1, 4, 1, 0, 0),  # exp overflows fp32 unless the largest is taken off
        "underflow": (np.full(16, -200.0) - np.arange(16), np.linspace(0.5, -0.5, 16), 1, 1, 4, 1, 1, 1),
    }
    out = {}
    for name, (logits, bias, groups, kept, k, norm, sigmoid, pair) in cases.items():
        logits, bias = stored(logits), None if bias is None else stored(bias)
        c = {"n_group": groups, "topk_group": kept, "num_experts_per_tok": k, "norm_topk_prob": norm, "routed_scaling_factor": 2.5,
             "scoring_func": "sigmoid" if sigmoid else "softmax", "topk_method": "noaux_tc" if pair else "group_limited_greedy"}
        ids, weights = choose_experts(c, logits, bias)
        out |= {f"{name}.logits": f32(logits), f"{name}.ids": i32(ids), f"{name}.weights": f32(weights), f"{name}.params": i32([groups, kept, k, norm, sigmoid, pair])}
        out |= {} if bias is None else {f"{name}.bias": f32(bias)}
    return out


def selection():
    rng = np.random.default_rng(15)
    at = np.arange(500)
    cases = {
        "random": (rng.standard_normal(700), 64), "all_equal": (np.full(300, -0.25), 17),
        "mass_tie_at_the_edge": (np.where(at % 7 == 3, 1.0, np.where(at % 3 == 0, 0.5, 0.0)), 100),
        "narrow_range": (1.0 + rng.integers(0, 40, 3000) * 2.0**-23, 256), "rising": (np.arange(400) / 8.0, 33), "falling": (-np.arange(400) / 8.0, 33),
        "signed_zeros": (np.where(np.arange(64) % 2 == 0, -0.0, 0.0), 9), "k_is_all": (rng.standard_normal(20), 20),
        "k_is_all_but_one": (rng.standard_normal(20), 19), "k_is_one": (np.array([1.0, 3.0, 3.0, 2.0]), 1), "negative": (-1.0 - rng.random(128), 8),
    }
    out = {}
    for name, (scores, k) in cases.items():
        scores = stored(scores)
        out |= {f"{name}.scores": f32(scores), f"{name}.chosen": i32(top_k(scores + 0.0, k))}
    return out


def matmul():
    """Exact in fp32 whatever the order of summation. FP8 has a ragged second row and column of scales; `heads` is 3 matrices in one."""
    rng = np.random.default_rng(16)
    x, w = dyadic(rng, 5, 96), dyadic(rng, 37, 96)
    x8, codes = dyadic(rng, 3, 200), formats.to_e4m3(dyadic(rng, 137, 200))
    scale = 2.0 ** rng.integers(-2, 3, (2, 2))
    w8 = formats.e4m3_values()[codes] * np.kron(scale, np.ones((128, 128)))[:137, :200]
    xh, wh = dyadic(rng, 5, 3, 40), dyadic(rng, 3, 7, 40)
    return {"bf16.x": f32(x), "bf16.w": bf16(w), "bf16.y": f32(x @ w.T), "fp8.x": f32(x8), "fp8.w": ("F8_E4M3", codes), "fp8.w_scale_inv": f32(scale), "fp8.y": f32(x8 @ w8.T),
            "heads.x": f32(xh), "heads.w": bf16(wh.reshape(21, 40)), "heads.y": f32(np.einsum("thc,hrc->thr", xh, wh))}


def index():
    """Dyadic, so exact; ties are many, and the choice (lower position wins) is part of the answer."""
    rng = np.random.default_rng(17)
    q, k, w = dyadic(rng, 4, 8, 32), dyadic(rng, 90, 32), dyadic(rng, 4, 8)
    scores = np.einsum("tj,tjs->ts", w, np.maximum(np.einsum("tjd,sd->tjs", q, k), 0))
    few = np.where(dyadic(rng, 1, 90) > 0.2, 1.0, -1.0)[0]  # two different keys only
    tied = np.einsum("tj,tjs->ts", w, np.maximum(np.einsum("tjd,sd->tjs", q, np.outer(few, k[0])), 0))
    out = {"q": f32(q), "w": f32(w), "k": f32(k), "scores": f32(scores), "tied.k": f32(np.outer(few, k[0])), "tied.scores": f32(tied)}
    return out | {"chosen": i32([top_k(row + 0.0, 20) for row in scores]), "tied.chosen": i32([top_k(row + 0.0, 20) for row in tied])}


def attend():
    """Ordinary queries, ones whose scores overflow exp without the maximum taken off, and ones far below zero; lists of 1, 7 and 70 positions."""
    rng = np.random.default_rng(18)
    size = np.array([1.0, 40.0, 1.0, 300.0])[:, None, None]
    ql, qr, latent, rope_part = (stored(v) for v in (size * rng.standard_normal((4, 3, 24)), size * rng.standard_normal((4, 3, 6)), rng.standard_normal((130, 24)), rng.standard_normal((130, 6))))
    lists = [np.arange(130), np.sort(rng.choice(130, 70, False)), np.array([77]), np.array([0, 1, 62, 63, 64, 128, 129])]
    out = np.zeros((4, 3, 24))
    for t, at in enumerate(lists):
        score = 0.25 * (ql[t] @ latent[at].T + qr[t] @ rope_part[at].T)
        p = np.exp(score - score.max(-1, keepdims=True))
        out[t] = p / p.sum(-1, keepdims=True) @ latent[at]
    chosen = [np.pad(v[:70], (0, 70 - len(v[:70])), constant_values=-1) for v in lists]
    return {"q_latent": f32(ql), "q_rope": f32(qr), "latent": f32(latent), "rope": f32(rope_part), "counts": i32([len(v) for v in lists]), "chosen": i32(chosen), "z": f32(out)}


def feed_forward():
    """SwiGLU with gates from -1e4 (exp overflows) to 1e4; experts of which some serve nobody and one serves every token."""
    rng = np.random.default_rng(19)
    g, u = stored(np.concatenate([rng.standard_normal(27), [-1e4, -104.0, -88.8, 0.0, 88.8, 1e4]])), stored(rng.standard_normal(33))
    x, y = stored(rng.standard_normal((5, 40))), stored(rng.standard_normal((5, 40)))
    parts = {name: rng.standard_normal(shape) * shape[-1] ** -0.5 for name, shape in (("gate", (6, 24, 40)), ("up", (6, 24, 40)), ("down", (6, 40, 24)))}
    exact = {name: formats.from_bf16(formats.to_bf16(v)) for name, v in parts.items()}
    ids, weight = np.array([[2, 4, 0], [4, 1, 2], [4, 0, 2], [0, 4, 1], [1, 2, 4]]), stored(rng.random((5, 3)))
    out = y + np.stack([sum(weight[t, s] * exact["down"][e] @ (silu(exact["gate"][e] @ x[t]) * (exact["up"][e] @ x[t])) for s, e in enumerate(ids[t])) for t in range(5)])
    with np.errstate(over="ignore"):
        answer = silu(g) * u
    return {"swiglu.gate": f32(g), "swiglu.up": f32(u), "swiglu.out": f32(answer), "experts.x": f32(x), "experts.ids": i32(ids), "experts.weights": f32(weight), "experts.y": f32(y),
            "experts.out": f32(out)} | {f"experts.{name}": bf16(v) for name, v in parts.items()}


if __name__ == "__main__":
    check_published_constants()
    folder = OUT / "components"
    folder.mkdir(parents=True, exist_ok=True)
    for make in (numbers, rope, norms, gate, selection, matmul, index, attend, feed_forward):
        formats.save(folder / f"{make.__name__}.safetensors", make())
