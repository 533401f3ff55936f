"""The whole model in float64 NumPy, one sequence, as slow and obvious as possible: what the goldens are made with. Shares no code
with the engine. Source: DeepSeek-V3.2 technical report and released configuration; layouts of the corrected reference
(indexer RoPE half-split, heads rope|nope; MLA RoPE interleaved, heads nope|rope)."""
import numpy as np


def rms(v, gain, eps):
    return gain * v / np.sqrt((v * v).mean(-1, keepdims=True) + eps)


def layer_norm(v, gain, bias, eps=1e-6):
    centred = v - v.mean(-1, keepdims=True)
    return gain * centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) + bias


def silu(v):
    return v / (1 + np.exp(-v))


def swiglu(w, at, x):
    return (silu(x @ w[at + "gate_proj.weight"].T) * (x @ w[at + "up_proj.weight"].T)) @ w[at + "down_proj.weight"].T


def yarn(c):
    """Rotation frequencies, the factor on the softmax scale, and the one on cosines and sines."""
    d, theta, s = c["qk_rope_head_dim"], c.get("rope_theta", 10000.0), c.get("rope_scaling")
    f = theta ** (-np.arange(0, d, 2) / d)
    if not s:
        return f, 1.0, 1.0
    dim = lambda turns: d * np.log(s["original_max_position_embeddings"] / (2 * np.pi * turns)) / (2 * np.log(theta))
    low, high = max(np.floor(dim(s["beta_fast"])), 0), min(np.ceil(dim(s["beta_slow"])), d - 1)
    ramp = np.clip((np.arange(d // 2) - low) / ((high - low) or 0.001), 0, 1)
    grown = lambda size: 0.1 * size * np.log(s["factor"]) + 1 if s["factor"] > 1 else 1.0
    m = grown(s.get("mscale_all_dim", 0))
    return f * (1 - ramp) + f / s["factor"] * ramp, m * m, grown(s.get("mscale", 1)) / m


def rotate(v, f, half_split, positions=None):
    """v [T, ..., d]: row t, at its position (t when none are given), turns the pairs (2i, 2i+1), or (i, i + d/2), by position * f[i]."""
    d = v.shape[-1]
    angle = (np.arange(v.shape[0]) if positions is None else positions)[:, None] * f
    angle = angle.reshape(angle.shape[:1] + (1,) * (v.ndim - 2) + angle.shape[1:])
    first, second = (slice(0, d // 2), slice(d // 2, d)) if half_split else (slice(0, d, 2), slice(1, d, 2))
    out = np.empty_like(v)
    out[..., first] = v[..., first] * np.cos(angle) - v[..., second] * np.sin(angle)
    out[..., second] = v[..., first] * np.sin(angle) + v[..., second] * np.cos(angle)
    return out


def top_k(scores, k):
    """Positions of the k largest, higher score first, then lower position; ascending."""
    return np.sort(np.lexsort((np.arange(len(scores)), -scores))[:k])


def choose_experts(c, logits, bias):
    """One token: expert ids in order of choice and their weights. Groups score by the sum of their two best, by their best under V2's
    group_limited_greedy; greedy has none. V2 scores by softmax, and its own gate either normalises or scales, never both."""
    score = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum() if c.get("scoring_func") == "softmax" else 1 / (1 + np.exp(-logits))
    biased = score + (0 if bias is None else bias)
    groups = 1 if c.get("topk_method") == "greedy" else c.get("n_group", 1)
    if groups > 1:
        parts = biased.reshape(groups, -1)
        value = parts.max(-1) if c.get("topk_method") == "group_limited_greedy" else np.sort(parts, -1)[:, -2:].sum(-1)
        keep = np.lexsort((np.arange(groups), -value))[: c["topk_group"]]
        masked = np.full_like(parts, -np.inf)
        masked[keep] = parts[keep]
        biased = masked.reshape(-1)
    ids = np.lexsort((np.arange(len(biased)), -biased))[: c["num_experts_per_tok"]]
    weight = score[ids]
    v2_gate = c.get("architectures") == ["DeepseekV2ForCausalLM"]
    if c.get("norm_topk_prob", not v2_gate) and (len(ids) > 1 or not v2_gate):
        weight = weight / (weight.sum() + 1e-20)
        if v2_gate:
            return ids, weight
    return ids, weight * c["routed_scaling_factor"]


class Reference:
    def __init__(self, config, weights):
        self.c, self.w = config, weights
        self.f, self.m, self.size = yarn(config)
        self.taps = {}

    def tap(self, layer, name, value):
        self.taps[f"{layer}.{name}"] = np.array(value, dtype=np.float64).reshape(len(value), -1)

    def index_scores(self, x, cq, layer, at):
        c, w, r = self.c, self.w, self.c["qk_rope_head_dim"]
        heads, dim = c["index_n_heads"], c["index_head_dim"]
        half_split = not c.get("indexer_rope_interleave", False)
        q = (cq @ w[at + "indexer.wq_b.weight"].T).reshape(-1, heads, dim)
        k = layer_norm(x @ w[at + "indexer.wk.weight"].T, w[at + "indexer.k_norm.weight"], w[at + "indexer.k_norm.bias"])
        q = np.concatenate([rotate(q[..., :r], self.f, half_split), q[..., r:]], -1)
        k = np.concatenate([rotate(k[..., :r], self.f, half_split), k[..., r:]], -1)
        weight = (x @ w[at + "indexer.weights_proj.weight"].T) * heads**-0.5 * dim**-0.5
        self.tap(layer, "index_q", q)
        self.tap(layer, "index_k", k)
        self.tap(layer, "index_w", weight)
        return np.einsum("tj,tjs->ts", weight, np.maximum(np.einsum("tjd,sd->tjs", q, k), 0))

    def attention(self, x, layer):
        c, w, at = self.c, self.w, f"model.layers.{layer}.self_attn."
        heads, nope, rope, v_dim, rank = c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"]
        length = len(x)
        if c.get("q_lora_rank"):
            cq = rms(x @ w[at + "q_a_proj.weight"].T, w[at + "q_a_layernorm.weight"], c["rms_norm_eps"])
            q = cq @ w[at + "q_b_proj.weight"].T
            self.tap(layer, "cq", cq)
        else:
            q = x @ w[at + "q_proj.weight"].T
        q = q.reshape(length, heads, nope + rope)
        q = np.concatenate([q[..., :nope], self.size * rotate(q[..., nope:], self.f, False)], -1)
        kv = x @ w[at + "kv_a_proj_with_mqa.weight"].T
        latent = rms(kv[:, :rank], w[at + "kv_a_layernorm.weight"], c["rms_norm_eps"])
        k_rope = self.size * rotate(kv[:, rank:], self.f, False)
        self.tap(layer, "q", q)
        self.tap(layer, "latent", latent)
        self.tap(layer, "k_rope", k_rope)
        chosen = [np.arange(t + 1) for t in range(length)]
        if "index_topk" in c:
            scores = self.index_scores(x, cq, layer, at)
            chosen = [top_k(scores[t, : t + 1], min(c["index_topk"], t + 1)) for t in range(length)]
            self.tap_selection(layer, scores, chosen)
        kv_b = w[at + "kv_b_proj.weight"].reshape(heads, nope + v_dim, rank)
        scale = (nope + rope) ** -0.5 * self.m
        out = np.stack([self.attend(q[t], latent[s], k_rope[s], kv_b, nope, scale) for t, s in enumerate(chosen)])
        self.tap(layer, "attn_heads", out)
        return out.reshape(length, -1) @ w[at + "o_proj.weight"].T

    def attend(self, q, latent, k_rope, kv_b, nope, scale):
        """Expanded keys and values; the absorbed form must agree, and is checked to."""
        k = np.einsum("hdr,sr->shd", kv_b[:, :nope], latent)
        v = np.einsum("hdr,sr->shd", kv_b[:, nope:], latent)
        score = scale * (np.einsum("hd,shd->hs", q[:, :nope], k) + q[:, nope:] @ k_rope.T)
        p = np.exp(score - score.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        out = np.einsum("hs,shd->hd", p, v)
        absorbed = scale * (np.einsum("hd,hdr->hr", q[:, :nope], kv_b[:, :nope]) @ latent.T + q[:, nope:] @ k_rope.T)
        assert np.abs(absorbed - score).max() < 1e-11
        assert np.abs(np.einsum("hr,hdr->hd", p @ latent, kv_b[:, nope:]) - out).max() < 1e-11
        return out

    def tap_selection(self, layer, scores, chosen):
        """Index sets padded with -1, and the gap between the last chosen score and the first one left out."""
        k = self.c["index_topk"]
        self.tap(layer, "index_chosen", [np.pad(s, (0, k - len(s)), constant_values=-1) for s in chosen])
        margin = []
        for t, s in enumerate(chosen):
            left = np.delete(scores[t, : t + 1], s)
            margin.append(scores[t, s].min() - left.max() if len(left) else np.inf)
        self.taps[f"{layer}.index_margin"] = np.array(margin)[:, None]
        self.taps[f"{layer}.index_scores"] = np.where(np.tri(len(scores)) > 0, scores, 0)

    def moe(self, x, layer):
        c, w, at = self.c, self.w, f"model.layers.{layer}.mlp."
        logits = x @ w[at + "gate.weight"].T
        bias = w.get(at + "gate.e_score_correction_bias")
        chosen = [choose_experts(c, row, bias) for row in logits]
        self.tap(layer, "expert_ids", [ids for ids, _ in chosen])
        self.tap(layer, "expert_weights", [weight for _, weight in chosen])
        out = np.stack([sum(g * swiglu(w, f"{at}experts.{e}.", x[t]) for e, g in zip(*chosen[t])) for t in range(len(x))])
        return out + swiglu(w, at + "shared_experts.", x) if c.get("n_shared_experts") else out

    def forward(self, ids):
        c, w = self.c, self.w
        x = w["model.embed_tokens.weight"][ids]
        for layer in range(c["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            normed = rms(x, w[at + "input_layernorm.weight"], c["rms_norm_eps"])
            self.tap(layer, "attn_norm", normed)
            attended = self.attention(normed, layer)
            self.tap(layer, "attn_out", attended)
            x = x + attended
            normed = rms(x, w[at + "post_attention_layernorm.weight"], c["rms_norm_eps"])
            dense = layer < c["first_k_dense_replace"] or layer % c.get("moe_layer_freq", 1) or not c.get("n_routed_experts")
            ffn = swiglu(w, at + "mlp.", normed) if dense else self.moe(normed, layer)
            self.tap(layer, "ffn_out", ffn)
            x = x + ffn
            self.tap(layer, "layer_out", x)
        head = w["model.embed_tokens.weight"] if c.get("tie_word_embeddings") else w["lm_head.weight"]
        return rms(x, w["model.norm.weight"], c["rms_norm_eps"]) @ head.T
