"""How vLLM is to run a model, in vLLM's own words. What is None is left to vLLM."""

from __future__ import annotations

from portico.messages import Value


class VllmOptions(Value, frozen=True, kw_only=True):
    """Names and meanings are those of `vllm serve --help`."""

    dtype: str | None = None
    quantization: str | None = None
    gpu_memory_utilization: float | None = None
    """Share of a GPU's whole memory, between 0 and 1."""
    kv_cache_memory_bytes: int | None = None
    """Bytes for the KV cache, in place of a share."""
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    lora_modules: tuple[tuple[str, str], ...] = ()
    """Name and folder of each adapter; its name is a model of its own to callers."""
    tool_call_parser: str | None = None
    """None: by the model's family; empty: none."""
    reasoning_parser: str | None = None
    port: int | None = None
    """A TCP port on loopback; None: a unix socket."""
    sleep: bool = False
    """Can give its memory back and stay alive; on GPUs only."""
    args: tuple[str, ...] = ()
    """Further arguments, verbatim. They come last, so they win."""
