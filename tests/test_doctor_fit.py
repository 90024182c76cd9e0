"""Would a model fit: plain values in, a verdict out."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.cli.checks import Check
from portico.cli.checks.fit import Fit, Room, on_llamacpp, on_vllm, token_bytes, verdict
from portico.engines import Facts, ModelSpec
from portico.engines.gpus import Gpu
from portico.engines.llamacpp import plan_slots
from portico.engines.vllm.options import VllmOptions
from portico.errors import EngineStartFailed

GIB = 1 << 30
HEADS: dict[str, object] = {
    "qwen3.block_count": 36,
    "qwen3.attention.head_count": 32,
    "qwen3.attention.head_count_kv": 8,
    "qwen3.attention.key_length": 128,
    "qwen3.attention.value_length": 128,
}
TOKEN = 2 * 36 * 8 * 256  # 144 KiB


def spec(
    *, size: int = 4 * GIB, context: int | None = 32768, engine: str = "llamacpp", **more: object
) -> ModelSpec:
    facts = Facts(architecture="qwen3", format="gguf", size=size, context=context, metadata=HEADS)
    return msgspec.structs.replace(ModelSpec(name="toy", engine=engine, source="x", facts=facts), **more)


def gpu(index: int = 0, *, total: int = 24 * GIB, free: int | None = None) -> Gpu:
    return Gpu(index=index, name="RTX", total=total, free=total if free is None else free)


def said(fit: Fit) -> Check:
    _, fits = verdict(
        "toy", fit, Room(host=0), set_context="portico serve toy --context {}", smaller="smaller"
    )
    return fits


# ---- a token of context


def test_what_a_token_takes() -> None:
    assert token_bytes(spec().facts) == TOKEN


def test_compressed_attention_is_counted_as_it_is_kept() -> None:
    """DeepSeek's and GLM's: one vector a layer, whatever the number of heads."""
    keys: dict[str, object] = {
        "deepseek_v3.block_count": 61,
        "deepseek_v3.attention.head_count": 128,
        "deepseek_v3.attention.kv_lora_rank": 512,
        "deepseek_v3.rope.dimension_count": 64,
    }
    assert token_bytes(Facts(architecture="deepseek_v3", format="safetensors", metadata=keys)) == 2 * 61 * 576


def test_nothing_known_is_zero() -> None:
    assert token_bytes(Facts(format="gguf")) == token_bytes(Facts(format="safetensors")) == 0


# ---- llama.cpp


def test_it_fits_whole() -> None:
    fit = on_llamacpp(spec(), Room(host=32 * GIB))
    assert (fit.weights, fit.wanted, fit.largest, fit.device) == (4 * GIB, 32768, 32768, "host")
    takes, fits = verdict("toy", fit, Room(host=32 * GIB), set_context="{}", smaller="")
    assert takes.found == (
        "weights 4.0 GiB, KV cache 4.5 GiB for its context of 32,768 tokens; 32.0 GiB of memory free"
    )
    assert fits.state == "ok" and fits.found == "yes, with its whole context of 32,768 tokens" and not fits.do


def test_its_weights_fit_and_its_context_does_not() -> None:
    fits = said(on_llamacpp(spec(), Room(host=8 * GIB)))
    assert fits.state == "warn"
    assert fits.found == "with 14,336 tokens of context at most, not with its 32,768"
    assert fits.do == "portico serve toy --context 14336"


def test_not_even_its_weights_fit() -> None:
    fits = said(on_llamacpp(spec(size=40 * GIB), Room(host=8 * GIB)))
    assert (fits.state, fits.do) == ("fail", "smaller")
    assert fits.found == "no: out of memory with the weights alone (memory)"


def test_a_context_that_was_asked_for_counts() -> None:
    trained = spec(context=131072)
    assert said(on_llamacpp(trained, Room(host=8 * GIB))).state == "warn"
    asked = msgspec.structs.replace(trained, context=4096)
    assert said(on_llamacpp(asked, Room(host=8 * GIB))).state == "ok"


def test_unknown_memory_and_unknown_heads_promise_nothing() -> None:
    room = Room(host=None)
    takes, fits = verdict("toy", on_llamacpp(spec(), room), room, set_context="{}", smaller="")
    assert fits.state == "ok" and takes.found.endswith("; what is free is not known")
    bare = ModelSpec(
        name="toy", engine="llamacpp", source="x", facts=Facts(format="gguf", size=GIB, context=4096)
    )
    assert (
        said(on_llamacpp(bare, Room(host=8 * GIB))).found
        == "the weights do; what its context takes is not known"
    )


@given(
    free=st.integers(0, 64 * GIB),
    size=st.integers(1, 64 * GIB),
    context=st.integers(1, 1 << 20),
)
def test_the_verdict_is_what_a_start_would_do(free: int, size: int, context: int) -> None:
    """The engine's own plan decides what is loaded; a verdict that differs from it would be a lie."""
    asked = spec(size=size, context=context)
    fit = on_llamacpp(asked, Room(host=free))
    try:
        slots = plan_slots(msgspec.structs.replace(asked, parallel=1), free)
    except EngineStartFailed:
        assert fit.largest == 0
    else:
        assert fit.largest == slots.context


# ---- vLLM


def test_a_gpu_is_taken_by_its_share() -> None:
    fit = on_vllm(spec(engine="vllm"), Room(host=GIB, gpus=(gpu(),)), "gpu")
    assert (fit.device, fit.share, fit.largest) == ("gpu", 0.9, 32768)
    takes, _ = verdict("toy", fit, Room(host=GIB, gpus=(gpu(), gpu(1))), set_context="{}", smaller="")
    assert takes.found.endswith("1.5 GiB beside; 1.0 GiB of memory free, 48.0 GiB of GPU memory")
    assert said(fit).state == "ok"


def test_a_gpu_with_too_little_for_the_context() -> None:
    fit = on_vllm(spec(engine="vllm", size=18 * GIB), Room(host=GIB, gpus=(gpu(),)), "gpu")
    left = int(0.9 * 24 * GIB) - 18 * GIB - (3 << 29)
    assert fit.largest == left // TOKEN // 256 * 256
    fits = said(fit)
    assert fits.state == "warn" and fits.do == f"portico serve toy --context {fit.largest}"


def test_a_gpu_that_others_use() -> None:
    fit = on_vllm(spec(engine="vllm"), Room(host=GIB, gpus=(gpu(free=15 * GIB),)), "gpu")
    fits = said(fit)
    assert fits.state == "warn"
    assert fits.found == "not while others use the GPU: vLLM takes 90% of it and 62% are free"
    assert fits.do == "portico serve toy --gpu-memory-utilization 0.62"
    full = said(on_vllm(spec(engine="vllm"), Room(host=GIB, gpus=(gpu(free=2 * GIB),)), "gpu"))
    assert full.state == "fail" and "too little for the weights" in full.found


def test_no_gpu_at_all() -> None:
    fits = said(on_vllm(spec(engine="vllm"), Room(host=64 * GIB), "gpu"))
    assert (fits.state, fits.found) == ("fail", "no: there is no GPU memory for it")


def test_two_gpus_for_one_model() -> None:
    two = spec(engine="vllm", size=30 * GIB, vllm=VllmOptions(tensor_parallel_size=2))
    assert said(on_vllm(two, Room(host=GIB, gpus=(gpu(0), gpu(1))), "gpu")).state == "ok"
    assert said(on_vllm(two, Room(host=GIB, gpus=(gpu(0),)), "gpu")).state == "fail"
    copied = spec(engine="vllm", size=12 * GIB, vllm=VllmOptions(args=("--data-parallel-size", "2")))
    assert said(on_vllm(copied, Room(host=GIB, gpus=(gpu(0), gpu(1))), "gpu")).state == "ok"
    assert said(on_vllm(copied, Room(host=GIB, gpus=(gpu(0),)), "gpu")).state == "fail"
    whole = spec(engine="vllm", size=30 * GIB, vllm=VllmOptions(args=("--data-parallel-size", "2")))
    assert said(on_vllm(whole, Room(host=GIB, gpus=(gpu(0), gpu(1))), "gpu")).state == "fail", (
        "a copy on each"
    )


def test_it_gets_the_gpu_with_the_most_free_memory() -> None:
    cards = (gpu(0, free=2 * GIB), gpu(1))
    assert said(on_vllm(spec(engine="vllm"), Room(host=GIB, gpus=cards), "gpu")).state == "ok"


@pytest.mark.parametrize(("host", "state"), [(64 * GIB, "warn"), (6 * GIB, "fail")])
def test_on_a_cpu_the_kv_cache_is_a_gigabyte(host: int, state: str) -> None:
    fit = on_vllm(spec(engine="vllm"), Room(host=host), "host")
    assert said(fit).state == state
    assert fit.largest in (0, GIB // TOKEN // 256 * 256)
