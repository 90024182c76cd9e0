"""A Qwen3-shaped decoder in plain PyTorch, made for training on few CPU cores.

Every parameter is a slice of one flat float32 buffer (the master weights). The forward pass reads a copy of it in
`dtype` (bfloat16 for training), packed so that q, k, v are one product and gate, up another; gradients arrive in
one flat buffer of the same layout. Files carry the names of transformers' Qwen3ForCausalLM.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from recipe.attention import attention

HEAD = 64
EPS = 1e-6


@dataclass
class Config:
    """The sizes of a network; heads = hidden / 64."""

    vocab: int = 1024
    hidden: int = 256
    layers: int = 6
    kv_heads: int = 1
    ffn: int = 768
    context: int = 8192
    theta: float = 10000.0

    @property
    def heads(self) -> int:
        return self.hidden // HEAD

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The packed parameters in their order in the flat buffer: norms, embedding, then the matrices."""
        h, n, f = self.hidden, self.layers, self.ffn
        return {
            "norm": (h,),
            "norm1": (n, h),
            "norm2": (n, h),
            "q_norm": (n, HEAD),
            "k_norm": (n, HEAD),
            "embed": (self.vocab, h),
            "qkv": (n, (self.heads + 2 * self.kv_heads) * HEAD, h),
            "o": (n, h, self.heads * HEAD),
            "gate_up": (n, 2 * f, h),
            "down": (n, h, f),
        }

    def hf(self) -> dict:
        """The config.json of transformers' Qwen3ForCausalLM."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": None,
            "dtype": "bfloat16",
            "eos_token_id": None,
            "head_dim": HEAD,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.ffn,
            "layer_types": ["full_attention"] * self.layers,
            "max_position_embeddings": self.context,
            "max_window_layers": self.layers,
            "model_type": "qwen3",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": None,
            "rms_norm_eps": EPS,
            "rope_parameters": {"rope_theta": self.theta, "rope_type": "default"},
            "sliding_window": None,
            "tie_word_embeddings": True,
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": self.vocab,
        }


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """RMS norm over the last axis, computed in float32."""
    y = x.float()
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + EPS)
    return (y * weight.float()).to(x.dtype)


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [B, T, heads, 64] turned by cos, sin [T, 32]: the halves form the pairs, as in transformers."""
    a, b = x.float().chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def block(x, norm1, qkv, q_norm, k_norm, o, norm2, gate_up, down, cos, sin, start):
    """One decoder layer: x [B, T, hidden], start [B, T] int32 -> [B, T, hidden]."""
    b, t, _ = x.shape
    nq = o.shape[1] // HEAD
    y = F.linear(rms(x, norm1), qkv).view(b, t, -1, HEAD)
    nk = (y.shape[2] - nq) // 2
    q = rope(rms(y[:, :, :nq], q_norm), cos, sin)
    k = rope(rms(y[:, :, nq : nq + nk], k_norm), cos, sin)
    a = attention(q, k, y[:, :, nq + nk :].contiguous(), start)
    x = x + F.linear(a.reshape(b, t, nq * HEAD), o)
    gate, up = F.linear(rms(x, norm2), gate_up).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, down)


def cross_entropy(logits, target, weight, z):
    """logits [C, V] -> (nll [C], weighted gradient [C, V] in logits' dtype), with z times lse squared added."""
    x = logits.float()
    top = x.amax(-1, keepdim=True)
    e = torch.exp(x - top)
    total = e.sum(-1, keepdim=True)
    lse = top + total.log()
    hit = torch.arange(x.shape[1])[None, :] == target[:, None]
    nll = lse[:, 0] - torch.where(hit, x, 0.0).sum(-1)
    grad = (e / total) * (1 + 2 * z * lse) - hit.float()
    return nll, (grad * weight[:, None]).to(logits.dtype)


class _Embed(torch.autograd.Function):
    """embed [V, H], tokens [N] -> [N, H]; its gradient is summed in float32."""

    @staticmethod
    def forward(ctx, embed, tokens):
        ctx.save_for_backward(tokens)
        ctx.vocab = embed.shape[0]
        return embed.index_select(0, tokens)

    @staticmethod
    def backward(ctx, g):
        (tokens,) = ctx.saved_tensors
        hot = torch.zeros(ctx.vocab, tokens.shape[0], dtype=g.dtype)
        hot[tokens, torch.arange(tokens.shape[0])] = 1
        return hot @ g, None


class _Head(torch.autograd.Function):
    """The loss of the chosen rows, its gradients made on the way (so backward assumes d loss = 1).

    h [N, H], embed [V, H], rows [M], target [M], weight [M] -> nll [M]; M is a multiple of CHUNK.
    """

    CHUNK = 1024

    @staticmethod
    def forward(ctx, h, embed, rows, target, weight, z, entropy):
        dh, de = torch.zeros_like(h), torch.zeros(embed.shape)
        nll = torch.empty(rows.shape[0])
        for at in range(0, rows.shape[0], _Head.CHUNK):
            part = slice(at, at + _Head.CHUNK)
            x = h.index_select(0, rows[part])
            nll[part], grad = entropy(x @ embed.t(), target[part], weight[part], z)
            dh.index_copy_(0, rows[part], grad @ embed)
            de += grad.t() @ x
        ctx.save_for_backward(dh, de.to(embed.dtype))
        return nll

    @staticmethod
    def backward(ctx, _):
        dh, de = ctx.saved_tensors
        return dh, de, None, None, None, None, None


class Network:
    """The weights and the forward pass."""

    def __init__(
        self, config: Config, dtype: torch.dtype = torch.bfloat16, seed: int = 0, compiled: bool = False
    ):
        self.config, self.dtype = config, dtype
        shapes = config.shapes()
        size = sum(math.prod(s) for s in shapes.values())
        self.flat = torch.zeros(size)
        self.copy = torch.zeros(size, dtype=dtype)
        self.grad = torch.zeros(size, dtype=dtype)
        self.master, self.grads, self.ranges = {}, {}, {}
        self.leaves: dict[str, torch.Tensor | list[torch.Tensor]] = {}
        at = 0
        for name, shape in shapes.items():
            part = slice(at, at := at + math.prod(shape))
            self.ranges[name] = part
            self.master[name] = self.flat[part].view(shape)
            self.grads[name] = self.grad[part].view(shape)
            copy = self.copy[part].view(shape)
            if name in ("norm", "embed"):
                self.leaves[name] = self._leaf(copy, self.grads[name])
            else:
                pairs = zip(copy, self.grads[name], strict=True)
                self.leaves[name] = [self._leaf(c, g) for c, g in pairs]
        self._start_values(seed)
        steps = torch.arange(config.context, dtype=torch.float32)[:, None]
        turn = steps / config.theta ** (torch.arange(0, HEAD, 2, dtype=torch.float32) / HEAD)
        self.cos, self.sin = turn.cos(), turn.sin()
        make = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self._block, self._norm, self._entropy = make(block), make(rms), make(cross_entropy)

    @staticmethod
    def _leaf(value: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        leaf = value.detach().requires_grad_()
        leaf.grad = grad
        return leaf

    def _start_values(self, seed: int) -> None:
        made = torch.Generator().manual_seed(seed)
        for name, x in self.master.items():
            if "norm" in name:
                x.fill_(1.0)
            else:
                std = 0.02 if name == "embed" else 0.5 / math.sqrt(x.shape[-1])
                if name in ("o", "down"):
                    std /= math.sqrt(2 * self.config.layers)
                x.normal_(0, std, generator=made)
        self.refresh()

    def refresh(self) -> None:
        """Bring the master weights into the copy that the forward pass reads."""
        self.copy.copy_(self.flat)

    def hidden(self, tokens: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """tokens [B, T], start [B, T] int32 -> [B * T, hidden], after the last norm."""
        b, t = tokens.shape
        x = _Embed.apply(self.leaves["embed"], tokens.reshape(-1)).view(b, t, -1)
        names = ("norm1", "qkv", "q_norm", "k_norm", "o", "norm2", "gate_up", "down")
        cos, sin = self.cos[:t], self.sin[:t]
        for weights in zip(*(self.leaves[n] for n in names), strict=True):
            x = self._block(x, *weights, cos, sin, start)
        return self._norm(x, self.leaves["norm"]).view(b * t, -1)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [B, T], one document a row -> [B, T, vocab]."""
        h = self.hidden(tokens, torch.zeros(tokens.shape, dtype=torch.int32))
        return F.linear(h, self.leaves["embed"]).view(*tokens.shape, -1)

    def loss(self, tokens, start, rows, target, weight, z: float = 0.0) -> torch.Tensor:
        """The nll [M] of the rows [M] of the flattened batch; sum(weight * nll) is what backward descends."""
        h = self.hidden(tokens, start)
        return _Head.apply(h, self.leaves["embed"], rows, target, weight, z, self._entropy)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The master weights under the names of Qwen3ForCausalLM; tied, so without lm_head. Views, not copies."""
        c, m = self.config, self.master
        q, k = c.heads * HEAD, c.kv_heads * HEAD
        out = {"model.embed_tokens.weight": m["embed"], "model.norm.weight": m["norm"]}
        for i in range(c.layers):
            parts = {
                "input_layernorm": m["norm1"][i],
                "post_attention_layernorm": m["norm2"][i],
                "self_attn.q_norm": m["q_norm"][i],
                "self_attn.k_norm": m["k_norm"][i],
                "self_attn.q_proj": m["qkv"][i, :q],
                "self_attn.k_proj": m["qkv"][i, q : q + k],
                "self_attn.v_proj": m["qkv"][i, q + k :],
                "self_attn.o_proj": m["o"][i],
                "mlp.gate_proj": m["gate_up"][i, : c.ffn],
                "mlp.up_proj": m["gate_up"][i, c.ffn :],
                "mlp.down_proj": m["down"][i],
            }
            out |= {f"model.layers.{i}.{name}.weight": x for name, x in parts.items()}
        return out

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take weights under the names of Qwen3ForCausalLM."""
        for name, x in self.state_dict().items():
            x.copy_(state[name])
        self.refresh()

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors (bfloat16)."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config.hf(), indent=2) + "\n")
        state = {n: x.to(torch.bfloat16).contiguous() for n, x in self.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    def sizes(self) -> dict:
        return asdict(self.config)
