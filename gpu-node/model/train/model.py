"""DeepseekV32 in PyTorch, for training: the names of the published checkpoint, dense or sparse attention, indexer loss.
Source: DeepSeek-V3.2 technical report, sections 2.1 and 2.2; the layouts are those of the corrected reference."""
import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab_size: int = 2048
    hidden_size: int = 192
    num_hidden_layers: int = 4
    first_k_dense_replace: int = 1
    num_attention_heads: int = 4
    q_lora_rank: int = 96
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    intermediate_size: int = 384
    moe_intermediate_size: int = 128
    n_routed_experts: int = 8
    n_shared_experts: int = 1
    num_experts_per_tok: int = 2
    routed_scaling_factor: float = 1.0
    index_n_heads: int = 4
    index_head_dim: int = 32
    index_topk: int = 128
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 4096

    def as_dict(self):
        return asdict(self)


def rope(x, positions, theta, half_split):
    """x [..., T, d] with positions [T]; pairs (2i, 2i+1), or (i, i + d/2) when half_split."""
    d = x.shape[-1]
    angle = positions[:, None] * theta ** (-torch.arange(0, d, 2).float() / d)
    cos, sin = angle.cos(), angle.sin()
    a, b = (x[..., : d // 2], x[..., d // 2 :]) if half_split else (x[..., 0::2], x[..., 1::2])
    left, right = a * cos - b * sin, a * sin + b * cos
    return torch.cat([left, right], -1) if half_split else torch.stack([left, right], -1).flatten(-2)


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def linear(n_in, n_out):
    layer = nn.Linear(n_in, n_out, bias=False)
    nn.init.normal_(layer.weight, std=n_in**-0.5)
    return layer


class Indexer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.wq_b = linear(c.q_lora_rank, c.index_n_heads * c.index_head_dim)
        self.wk = linear(c.hidden_size, c.index_head_dim)
        self.k_norm = nn.LayerNorm(c.index_head_dim, eps=1e-6)
        self.weights_proj = linear(c.hidden_size, c.index_n_heads)

    def forward(self, x, cq, positions):
        """x [B,T,hidden], cq [B,T,q_lora] -> index scores [B,T,T]. Heads are rope|nope, half-split RoPE."""
        c, r = self.c, self.c.qk_rope_head_dim
        q = self.wq_b(cq).unflatten(-1, (c.index_n_heads, c.index_head_dim)).transpose(1, 2)
        k = self.k_norm(self.wk(x))
        q = torch.cat([rope(q[..., :r], positions, c.rope_theta, True), q[..., r:]], -1)
        k = torch.cat([rope(k[..., :r], positions, c.rope_theta, True), k[..., r:]], -1)
        w = self.weights_proj(x) * (c.index_n_heads**-0.5 * c.index_head_dim**-0.5)
        return torch.einsum("bth,bhts->bts", w, torch.relu(q @ k.transpose(-1, -2).unsqueeze(1)))


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, h = c, c.num_attention_heads
        self.q_a_proj = linear(c.hidden_size, c.q_lora_rank)
        self.q_a_layernorm = RMSNorm(c.q_lora_rank, c.rms_norm_eps)
        self.q_b_proj = linear(c.q_lora_rank, h * (c.qk_nope_head_dim + c.qk_rope_head_dim))
        self.kv_a_proj_with_mqa = linear(c.hidden_size, c.kv_lora_rank + c.qk_rope_head_dim)
        self.kv_a_layernorm = RMSNorm(c.kv_lora_rank, c.rms_norm_eps)
        self.kv_b_proj = linear(c.kv_lora_rank, h * (c.qk_nope_head_dim + c.v_head_dim))
        self.o_proj = linear(h * c.v_head_dim, c.hidden_size)
        self.indexer = Indexer(c)
        self.watch = None  # called with (scores, index, mask) by evaluate.py
        self.strict = False  # exactly index_topk keys, ties to the lower position, as the engine does; training keeps all tied keys

    def forward(self, x, positions, mask, mode):
        """mask [B,T,T] is True where a key may be seen. mode: dense | warmup | sparse. Returns output and indexer loss."""
        c, h, (batch, length, _) = self.c, self.c.num_attention_heads, x.shape
        cq = self.q_a_layernorm(self.q_a_proj(x))
        q = self.q_b_proj(cq).view(batch, length, h, -1).transpose(1, 2)
        q = torch.cat([q[..., : c.qk_nope_head_dim], rope(q[..., c.qk_nope_head_dim :], positions, c.rope_theta, False)], -1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([c.kv_lora_rank, c.qk_rope_head_dim], -1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).view(batch, length, h, -1).transpose(1, 2)
        k_nope, v = kv.split([c.qk_nope_head_dim, c.v_head_dim], -1)
        k_rope = rope(k_rope, positions, c.rope_theta, False).unsqueeze(1).expand(-1, h, -1, -1)
        scores = (q * q.shape[-1] ** -0.5) @ torch.cat([k_nope, k_rope], -1).transpose(-1, -2)
        loss, chosen = x.new_zeros(()), mask
        if mode != "dense":
            index = self.indexer(x.detach(), cq.detach(), positions).masked_fill(~mask, -math.inf)
            if self.watch is not None:
                self.watch(scores, index, mask)
            if mode == "sparse" and length > c.index_topk:
                if self.strict:
                    keys = index.sort(dim=-1, descending=True, stable=True).indices[..., : c.index_topk]
                    chosen = mask & torch.zeros_like(mask).scatter(-1, keys, True)
                else:
                    kth = index.topk(c.index_topk, -1).values[..., -1:]
                    chosen = mask & (index >= kth)
        p = scores.masked_fill(~chosen.unsqueeze(1), -math.inf).softmax(-1)
        if mode != "dense":
            target = p.detach().mean(1)
            log_index = index.masked_fill(~chosen, -math.inf).log_softmax(-1).masked_fill(~chosen, 0)
            loss = (target * ((target + 1e-10).log() - log_index)).sum(-1).mean()
        out = (p @ v).transpose(1, 2).reshape(batch, length, -1)
        return self.o_proj(out), loss


class MLP(nn.Module):
    def __init__(self, size, inner):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(size, inner), linear(size, inner), linear(inner, size)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c.n_routed_experts, c.hidden_size) * c.hidden_size**-0.5)
        self.register_buffer("e_score_correction_bias", torch.zeros(c.n_routed_experts))


class MoE(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.gate = c, Gate(c)
        self.experts = nn.ModuleList(MLP(c.hidden_size, c.moe_intermediate_size) for _ in range(c.n_routed_experts))
        self.shared_experts = MLP(c.hidden_size, c.moe_intermediate_size * c.n_shared_experts)
        self.load = None

    def forward(self, x):
        c, flat = self.c, x.reshape(-1, x.shape[-1])
        score = torch.sigmoid(flat @ self.gate.weight.T)
        ids = (score.detach() + self.gate.e_score_correction_bias).topk(c.num_experts_per_tok, -1).indices
        weight = score.gather(-1, ids)
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20) * c.routed_scaling_factor
        out = self.shared_experts(flat)
        self.load = torch.bincount(ids.flatten(), minlength=c.n_routed_experts).float()
        for e, expert in enumerate(self.experts):
            token, slot = (ids == e).nonzero(as_tuple=True)
            out = out.index_add(0, token, expert(flat[token]) * weight[token, slot, None])
        return out.view_as(x)


class Layer(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.mlp = MLP(c.hidden_size, c.intermediate_size) if index < c.first_k_dense_replace else MoE(c)

    def forward(self, x, positions, mask, mode):
        attended, loss = self.self_attn(self.input_layernorm(x), positions, mask, mode)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), loss


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.5)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config, self.model, self.lm_head = c, Body(c), linear(c.hidden_size, c.vocab_size)
        with torch.no_grad():
            for layer in self.model.layers:
                layer.self_attn.o_proj.weight.mul_(0.3)

    def hidden(self, ids, documents, mode):
        """ids, documents [B,T] -> normed hidden state [B,T,hidden] and the sum of the layers' indexer losses."""
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = causal & (documents[:, :, None] == documents[:, None, :])
        x, total = self.model.embed_tokens(ids), 0.0
        for layer in self.model.layers:
            x, loss = layer(x, torch.arange(length).float(), mask, mode)
            total = total + loss
        return self.model.norm(x), total

    def balance(self, step):
        """Auxiliary-loss-free balancing: the bias follows the load's sign (training only)."""
        for layer in self.model.layers:
            if isinstance(layer.mlp, MoE) and layer.mlp.load is not None:
                layer.mlp.gate.e_score_correction_bias += step * torch.sign(layer.mlp.load.mean() - layer.mlp.load)
