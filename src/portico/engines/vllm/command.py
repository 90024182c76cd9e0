"""The command that starts vLLM for a model. Pure: a model and an installation in, arguments and environment out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from portico.engines import ModelSpec
from portico.engines.vllm.arguments import flag, has_any
from portico.engines.vllm.families import family
from portico.engines.vllm.installs import Install
from portico.messages import Value

CPU_KV_BYTES = 1 << 30
"""vLLM on a CPU takes half of the machine's memory for its KV cache unless it is told."""
_GIB = 1 << 30
_AUTO_TOOLS = "--enable-auto-tool-choice"
_EAGER = ("--enforce-eager", "--no-enforce-eager", "--compilation-config", "-cc", "-O")


class Place(Value, frozen=True, kw_only=True):
    """Where an engine listens, and where its files go."""

    socket: str | None
    """Path of a unix socket; None: `port` of loopback."""
    port: int | None
    key: str
    cache: Path
    """Compiled kernels and graphs, kept from one start to the next: the second start of a model is much faster."""
    template: Path | None = None
    """A chat template used instead of the model's own."""
    gpus: str | None = None
    """Numbers of the GPUs it is to use, as CUDA_VISIBLE_DEVICES has them; None: those that vLLM sees."""
    offline: bool = False
    """All files are here; the hub is not asked. Without it a machine that cannot reach the hub waits for it."""


class Command(Value, frozen=True, kw_only=True):
    argv: tuple[str, ...]
    environment: dict[str, str]


def command(spec: ModelSpec, install: Install, place: Place, *, more: Mapping[str, str] = {}) -> Command:
    """`more`: further variables, such as the mark by which the processes are known."""
    argv = [install.python, "-m", install.module, "--model", spec.source]
    argv += ["--served-model-name", spec.served_name or spec.name]
    argv += ["--uds", place.socket] if place.socket else ["--host", "127.0.0.1", "--port", str(place.port)]
    argv += _options(spec)
    argv += _parsers(spec)
    if place.template is not None:
        argv += ["--chat-template", str(place.template)]
    # What usage tells of the prefix cache, and the cache itself; our own log has a line for each request.
    argv += ["--enable-prefix-caching", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    given = spec.vllm.args
    if install.device == "cpu" and not has_any(given, _EAGER):
        argv.append("--enforce-eager")  # compiling for a CPU takes minutes and a C++ compiler
    argv += given
    return Command(argv=tuple(argv), environment={**_environment(spec, install, place), **more})


def _options(spec: ModelSpec) -> list[str]:
    options = spec.vllm
    # Without a wish: what the model was trained with, less where the memory is too small for that.
    argv = ["--max-model-len", str(spec.context) if spec.context else "auto"]
    for name, value in {
        "dtype": options.dtype,
        "quantization": options.quantization,
        "gpu-memory-utilization": options.gpu_memory_utilization,
        "kv-cache-memory-bytes": options.kv_cache_memory_bytes,
        "max-num-seqs": options.max_num_seqs,
        "max-num-batched-tokens": options.max_num_batched_tokens,
        "tensor-parallel-size": options.tensor_parallel_size,
        "pipeline-parallel-size": options.pipeline_parallel_size,
    }.items():
        if value is not None:
            argv += [f"--{name}", str(value)]
    if options.lora_modules:
        argv += [
            "--enable-lora",
            "--lora-modules",
            *(f"{name}={path}" for name, path in options.lora_modules),
        ]
    if options.sleep:
        argv.append("--enable-sleep-mode")
    return argv


def _parsers(spec: ModelSpec) -> list[str]:
    """Those that were asked for, else those of the model's family. One that stands in the arguments takes the place
    of ours of its kind."""
    options = spec.vllm
    given = {flag(each) for each in options.args}
    known = family(spec.facts.class_name, spec.facts.architecture, spec.source)
    tools = options.tool_call_parser if options.tool_call_parser is not None else known and known.tool_parser
    reasoning = (
        options.reasoning_parser if options.reasoning_parser is not None else known and known.reasoning_parser
    )
    argv = []
    if tools and "--tool-call-parser" not in given:
        # vLLM takes neither without the other; the switch may stand in the arguments already.
        argv += (
            ["--tool-call-parser", tools]
            if _AUTO_TOOLS in given
            else [_AUTO_TOOLS, "--tool-call-parser", tools]
        )
    if reasoning and "--reasoning-parser" not in given:
        argv += ["--reasoning-parser", reasoning]
    return argv


def _environment(spec: ModelSpec, install: Install, place: Place) -> dict[str, str]:
    found = {
        "VLLM_API_KEY": place.key,  # as an argument everybody on this machine could read it
        "VLLM_CACHE_ROOT": str(place.cache),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_COLOR": "0",
        "VLLM_DISABLE_LOG_LOGO": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": "86400",  # how long a start may take is ours to say: by its progress
        "PYTHONUNBUFFERED": "1",
        # `python -m` looks into the working folder first: a checkout of vLLM, or a file that is called like one of the
        # modules it imports, would be loaded instead.
        "PYTHONSAFEPATH": "1",
        # vLLM gives its processes titles, which setproctitle would write over their environment: the mark by which
        # they are found would be gone.
        "SPT_NOENV": "1",
    }
    if place.gpus is not None:
        found |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": place.gpus}
    if place.offline:
        found["HF_HUB_OFFLINE"] = "1"
    if spec.vllm.sleep:
        found["VLLM_SERVER_DEV_MODE"] = "1"
    if install.device == "cpu":
        space = spec.vllm.kv_cache_memory_bytes or CPU_KV_BYTES
        found["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, -(-space // _GIB)))
        found["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    return found
