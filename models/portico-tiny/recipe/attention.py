"""Causal attention that stays inside documents, in bfloat16 on the CPU.

attention.c is compiled at the start and called through ctypes; where that is impossible (no gcc, no avx512_bf16)
torch's scaled_dot_product_attention with a mask does the same, more slowly:
it takes 109 ms a layer, forward and backward, for 24 rows of 512 tokens on two cores, where attention.c takes 21.
"""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

SOURCE = Path(__file__).with_name("attention.c")


def _library() -> ctypes.CDLL | None:
    """The compiled attention.c, or None where it cannot be compiled or run."""
    if os.environ.get("RECIPE_ATTENTION") == "torch":
        return None
    try:
        flags = Path("/proc/cpuinfo").read_text()
        if "avx512_bf16" not in flags:
            return None
        with tempfile.TemporaryDirectory(prefix="portico-attention-") as folder:
            built = Path(folder, "attention.so")
            options = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
            subprocess.run(["gcc", *options, str(SOURCE), "-o", str(built), "-lm"], check=True)
            return ctypes.CDLL(str(built))
    except (OSError, subprocess.CalledProcessError):
        return None


_LIB = _library()


def _call(name: str, tensors: list[torch.Tensor], sizes: list[int]) -> None:
    """Call a function of attention.c with tensors' addresses, then sizes, then the number of threads."""
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
    getattr(_LIB, name)(*pointers, *[ctypes.c_long(n) for n in [*sizes, torch.get_num_threads()]])


def _mask(start: torch.Tensor) -> torch.Tensor:
    """start [B, T] -> bool [B, 1, T, T], True where query t (row) may see key s (column)."""
    t = torch.arange(start.shape[1])
    return ((t[None, :] <= t[:, None])[None] & (t[None, None, :] >= start[:, :, None]))[:, None]


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """The same with torch alone, differentiable, in any dtype: [B, T, heads, 64] -> [B, T, heads, 64]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=_mask(start), enable_gqa=True)
    return o.transpose(1, 2).contiguous()


@torch.library.custom_op("recipe::attention", mutates_args=())
def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    b, t, nq, _ = q.shape
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out, lse = torch.empty_like(q), torch.empty(b, nq, t)
    _call("attention_forward", [q, k, v, start, out, lse], [b, t, nq, k.shape[2]])
    return out, lse


@_forward.register_fake
def _(q, k, v, start):
    return torch.empty_like(q), q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)


@torch.library.custom_op("recipe::attention_backward", mutates_args=())
def _backward(
    g: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    start: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    b, t, nq, _ = q.shape
    g, q, k, v = g.contiguous(), q.contiguous(), k.contiguous(), v.contiguous()
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _call("attention_backward", [g, q, k, v, start, out, lse, *grads], [b, t, nq, k.shape[2]])
    return grads


@_backward.register_fake
def _(g, q, k, v, start, out, lse):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _grad(ctx, g, _lse):
    return *torch.ops.recipe.attention_backward(g, *ctx.saved_tensors), None


_forward.register_autograd(_grad, setup_context=_save)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """q [B, T, NQ, 64], k and v [B, T, NK, 64], start [B, T] int32 -> [B, T, NQ, 64].

    Query t sees the keys start[t] .. t: with the first position of its document as start, no document sees
    another. The fast path needs bfloat16 and T a multiple of 64.
    """
    if _LIB is None or q.dtype != torch.bfloat16 or q.shape[1] % 64:
        return plain(q, k, v, start)
    return torch.ops.recipe.attention(q, k, v, start)[0]
