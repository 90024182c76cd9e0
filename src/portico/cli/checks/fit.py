"""Would a model fit here, with how much context? Pure: a model and what is free in, a verdict out.

What llama.cpp and vLLM take is computed as their engines here do it: llama.cpp is given half of the memory beside its
weights for the context, vLLM a share of each GPU, or on a CPU a gigabyte for its KV cache.
"""

from __future__ import annotations

from typing import NamedTuple

from portico.cli import units
from portico.cli.checks import Check
from portico.engines import Device, Facts, ModelSpec
from portico.engines.gpus import Gpu
from portico.engines.llamacpp import SMALLEST_CONTEXT, cell_bytes
from portico.engines.vllm.command import CPU_KV_BYTES
from portico.engines.vllm.engine import PROCESS_BYTES, USUAL_SHARE, gpu_count, shards

GROUP = "model"
_STEP = 256
"""Contexts are named in multiples of it."""


class Room(NamedTuple):
    """What is free, in bytes; host None: unknown."""

    host: int | None
    gpus: tuple[Gpu, ...] = ()


class Fit(NamedTuple):
    """Bytes and tokens. `wanted` 0: how much context the model has is not known, `token` 0: nor what it takes."""

    weights: int
    token: int
    """Bytes of KV cache a token of context takes."""
    wanted: int
    largest: int
    """Tokens of context that fit, at most `wanted`; 0: not even the weights do."""
    free: int
    """Of what the engine may take."""
    device: Device
    beside: int = 0
    """What the engine takes besides."""
    share: float = 0.0
    """Of the GPUs it needs the engine takes so much; 0: it is no GPU."""
    short: float = 0.0
    """The share that would be free instead, where that is less."""


def token_bytes(facts: Facts) -> int:
    """Of KV cache, at 16 bit; 0: the files do not tell. At most: of a sliding window it takes less."""
    rank = facts.metadata.get(f"{facts.architecture}.attention.kv_lora_rank")
    if facts.format == "safetensors" and isinstance(rank, int):
        # Multi-head latent attention keeps one compressed vector a token and layer, whatever the number of heads.
        layers = facts.metadata.get(f"{facts.architecture}.block_count")
        turned = facts.metadata.get(f"{facts.architecture}.rope.dimension_count")
        return (
            2
            * (layers if isinstance(layers, int) else 0)
            * (rank + (turned if isinstance(turned, int) else 0))
        )
    return cell_bytes(facts)


def on_llamacpp(spec: ModelSpec, room: Room) -> Fit:
    weights, token, wanted = spec.facts.size or 0, token_bytes(spec.facts), spec.most_context or 0
    free = room.host if room.host is not None else 1 << 62
    left = max(free - weights, 0) // 2
    return Fit(weights, token, wanted, _largest(left, token, wanted, free > weights), free, "host")


def on_vllm(spec: ModelSpec, room: Room, device: Device) -> Fit:
    weights, token, wanted = spec.facts.size or 0, token_bytes(spec.facts), spec.most_context or 0
    options = spec.vllm
    if device == "host":
        cache = options.kv_cache_memory_bytes or CPU_KV_BYTES
        free = room.host if room.host is not None else 1 << 62
        fits = free >= weights + cache + PROCESS_BYTES
        largest = _largest(cache, token, wanted, fits)
        return Fit(weights, token, wanted, largest, free, "host", beside=cache + PROCESS_BYTES)
    count, parts = gpu_count(options), shards(options)
    taken = sorted(room.gpus, key=lambda gpu: (-gpu.free, gpu.index))[:count]
    share = options.gpu_memory_utilization or USUAL_SHARE
    free_share = min((gpu.free / gpu.total for gpu in taken), default=0.0)
    of_each = int(min(share, free_share) * min((gpu.total for gpu in taken), default=0))
    rest = of_each - weights // parts - PROCESS_BYTES
    cache = (options.kv_cache_memory_bytes or rest) * parts
    fits = len(taken) == count and rest > 0
    return Fit(
        weights,
        token,
        wanted,
        _largest(cache, token, wanted, fits),
        sum(gpu.free for gpu in taken),
        "gpu",
        beside=PROCESS_BYTES * len(taken),
        share=share,
        short=free_share if free_share < share else 0.0,
    )


def _largest(left: int, token: int, wanted: int, fits: bool) -> int:
    if not fits:
        return 0
    if not token or not wanted:
        return wanted or 1
    tokens = left // token
    if tokens >= wanted:
        return wanted
    return tokens // _STEP * _STEP if tokens >= SMALLEST_CONTEXT else 0


def verdict(name: str, fit: Fit, room: Room, *, set_context: str, smaller: str) -> list[Check]:
    """Two lines: what it takes, and whether that is there. `set_context`: the command with the largest context in
    place of {}; `smaller`: what to do where not even the weights fit."""
    takes = f"weights {units.memory(fit.weights)}" if fit.weights else "weights of unknown size"
    if fit.token and fit.wanted:
        takes += f", KV cache {units.memory(fit.token * fit.wanted)} for its context of {fit.wanted:,} tokens"
    elif fit.wanted:
        takes += f", a context of {fit.wanted:,} tokens (what it takes is not known)"
    if fit.beside:
        takes += f", {units.memory(fit.beside)} beside"
    free = (
        f"{units.memory(room.host)} of memory free" if room.host is not None else "what is free is not known"
    )
    if room.gpus:
        free += f", {units.memory(sum(gpu.free for gpu in room.gpus))} of GPU memory"
    lines = [Check(GROUP, "takes", "ok" if fit.weights else "skip", f"{takes}; {free}")]
    where = "GPU memory" if fit.device == "gpu" else "memory"
    return [*lines, _fits(name, fit, where, set_context, smaller)]


def _fits(name: str, fit: Fit, where: str, set_context: str, smaller: str) -> Check:
    if not fit.largest:
        if not fit.free:
            return Check(GROUP, "fits", "fail", f"no: there is no {where} for it", smaller)
        if fit.short:
            take = f"vLLM takes {fit.share:.0%} of a GPU and {fit.short:.0%} are free"
            return Check(GROUP, "fits", "fail", f"no: {take}, too little for the weights", smaller)
        return Check(GROUP, "fits", "fail", f"no: out of memory with the weights alone ({where})", smaller)
    if fit.short:
        share = int(fit.short * 100) / 100
        found = f"not while others use the GPU: vLLM takes {fit.share:.0%} of it and {fit.short:.0%} are free"
        return Check(GROUP, "fits", "warn", found, f"portico serve {name} --gpu-memory-utilization {share:g}")
    if fit.wanted and fit.largest < fit.wanted:
        found = f"with {fit.largest:,} tokens of context at most, not with its {fit.wanted:,}"
        return Check(GROUP, "fits", "warn", found, set_context.format(fit.largest))
    if not fit.token or not fit.wanted:
        return Check(GROUP, "fits", "ok", "the weights do; what its context takes is not known")
    return Check(GROUP, "fits", "ok", f"yes, with its whole context of {fit.wanted:,} tokens")
