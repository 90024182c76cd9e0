"""What a starting vLLM says, read from logs whose lines are vLLM's own, and whether it still says it like that."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from string import Formatter
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.engines.vllm import said
from portico.engines.vllm.causes import CAUSES, Failure, FailureCode
from portico.engines.vllm.said import STAGES, Heard, Stages, heard, stage
from portico.engines.vllm.why import scan, why
from portico.process import Log

LOGS = Path(__file__).parent / "vllm_logs"


def log(name: str) -> list[str]:
    """The lines as `process.Log` keeps them."""
    kept = Log(lines=10_000)
    kept.write((LOGS / f"{name}.txt").read_bytes())
    return kept.lines()


def raised(text: str) -> list[str]:
    """A log that ends with an exception nobody caught."""
    return ["Traceback (most recent call last):", '  File "core.py", line 1, in start', "    begin()", text]


# ---- stages ------------------------------------------------------------------------------------


def walk(name: str) -> tuple[list[tuple[str, float | None]], Stages]:
    stages = Stages()
    changes = [change for line in log(name) if (change := stages.feed(line))]
    return [(change.name, change.fraction) for change in changes], stages


def test_a_whole_start_on_a_gpu() -> None:
    changes, stages = walk("start_gpu")
    assert changes == [
        ("loading weights", None),
        *(("loading weights", fraction) for fraction in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ("compiling", None),
        ("profiling memory", None),
        ("tuning kernels", None),
        ("tuning kernels", 1.0),
        # Each of the two bars comes as one line, because tqdm writes no newline before its end.
        ("capturing graphs", 0.5),
        ("capturing graphs", 1.0),
        ("warming up", None),
        ("ready", None),
    ]
    assert stages.heard == Heard(
        version="0.32.0",
        model="/models/qwen3-8b",
        context=32768,
        checkpoint_gib=15.27,
        weights_gib=15.26,
        kv_cache_gib=4.52,
        kv_cache_tokens=32880,
        concurrency=1.0,
        graphs_gib=0.72,
        load_seconds=6.184503,
        compile_seconds=26.71,
        graphs_seconds=7.0,
        engine_seconds=49.6,
    )


def test_a_whole_start_on_a_cpu() -> None:
    changes, stages = walk("start_cpu")
    assert changes == [
        ("loading weights", None),
        ("loading weights", 0.0),
        ("loading weights", 1.0),
        ("compiling", None),
        ("profiling memory", None),
        ("warming up", None),
        ("ready", None),
    ]
    assert stages.heard == Heard(
        version="0.32.0",
        model="/models/tiny",
        context=4096,
        checkpoint_gib=0.0,
        kv_cache_gib=1.0,
        kv_cache_tokens=838_784,
        concurrency=204.78,
        load_seconds=0.18,
        compile_seconds=14.22,
        engine_seconds=0.98,
    )


def test_two_workers_of_a_model_on_the_hub_and_colours() -> None:
    changes, stages = walk("start_gpu_two_workers")
    assert [name for name, _ in dict(changes).items()] == [name for name in STAGES if name != "starting"]
    assert [fraction for name, fraction in changes if name == "capturing graphs"] == [0.5, 1.0]
    assert (stages.heard.download_seconds, stages.heard.weights_gib, stages.heard.context) == (
        183.204911,
        7.66,
        40960,
    )


def test_graphs_that_are_captured_to_measure_them_are_profiling() -> None:
    stages = Stages()
    bar = "Capturing CUDA graphs (PIECEWISE):  50%|█████     | 5/10 [00:01<00:01,  5.00it/s]"
    assert stage(bar) == said.Stage(name="capturing graphs", fraction=0.5, detail="5 of 10")
    assert stages.feed(bar) == said.Stage(name="profiling memory")
    stages.feed(
        "(EngineCore pid=7) INFO 11-26 01:58:27 [kv_cache_utils.py:2327] GPU KV cache size: 1,024 tokens"
    )
    assert stages.feed(bar) == said.Stage(name="capturing graphs", fraction=0.5, detail="5 of 10")


def test_bars_that_are_still_being_written_count() -> None:
    stages = Stages()
    bar = "\rLoading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]"
    bar += "\rLoading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:03,  1.05s/it]"
    assert stages.feed(bar) == said.Stage(name="loading weights", fraction=0.25, detail="1 of 4")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "(APIServer pid=7) INFO 11-26 01:58:27 [launcher.py:195] Route: /health, Methods: GET",
        "(EngineCore pid=7) WARNING 11-26 01:58:27 [vllm.py:725] Model Runner V2 requires Triton.",
        "(APIServer pid=7) INFO 11-26 01:58:27 [serving.py:1] prompt: 'Application startup complete.'",
        "INFO:     Waiting for application startup.",
    ],
)
def test_lines_of_no_stage(line: str) -> None:
    assert stage(line) is None
    assert heard(line) == Heard()


def test_older_versions() -> None:
    one = heard("INFO 10-21 09:11:57 [kv_cache_utils.py:1087] GPU KV cache size: 425,424 tokens")
    two = heard(
        "INFO 10-21 09:11:57 [kv_cache_utils.py:1091] Maximum concurrency for 65,536 tokens per request: 6.49x"
    )
    three = heard(
        "(VllmWorker rank=1 pid=7) INFO 05-10 16:00:15 [x.py:1] Graph capturing finished in 3 secs, took 1 GiB"
    )
    assert three == Heard(graphs_seconds=3.0, graphs_gib=1.0)
    assert one.with_all_of(two) == Heard(kv_cache_tokens=425_424, concurrency=6.49, context=65_536)


ALL_LINES = [line for path in sorted(LOGS.glob("*.txt")) for line in log(path.stem)]


@given(st.lists(st.sampled_from(ALL_LINES), max_size=60))
@settings(deadline=None)
def test_a_start_only_goes_forward(lines: list[str]) -> None:
    stages = Stages()
    at = (STAGES.index(stages.now.name), -1.0)
    for line in lines:
        if change := stages.feed(line):
            assert change == stages.now
            new = (STAGES.index(change.name), -1.0 if change.fraction is None else change.fraction)
            assert new > at and new[1] <= 1.0
            at = new


# ---- why it did not start ----------------------------------------------------------------------

FAILURES: dict[str, tuple[FailureCode, str, tuple[str, ...]]] = {
    "bad_argument": (
        "bad_argument",
        "vLLM does not know the argument --max-model-length.",
        ("--max-model-len,", "--help=all"),
    ),
    "bad_argument_choice": ("bad_argument", "--kv-cache-dtype does not take fp3.", ("fp8, fp8_e4m3",)),
    "bad_argument_value": (
        "bad_argument",
        "--gpu-memory-utilization does not take 1.5: Input should be less than or equal to 1.",
        ("--gpu-memory-utilization",),
    ),
    "bad_weights": (
        "bad_weights",
        "a file of the weights is damaged or cut off (incomplete metadata, file not fully covered).",
        ("fetch the model again",),
    ),
    "context_too_long": (
        "context_too_long",
        "a context of 1000000 tokens was asked for, and the model has 5120.",
        ("--max-model-len 5120",),
    ),
    "disk_full": (
        "disk_full",
        "the disk is full, at /root/.cache/vllm/torch_compile_cache/2b70b500a6/rank_0_0/backbone.",
        ("HF_HOME", "VLLM_CACHE_ROOT"),
    ),
    "dtype_unsupported": (
        "dtype_unsupported",
        "bfloat16 needs a GPU of compute capability 8.0, and Tesla T4 has 7.5.",
        ("--dtype half",),
    ),
    "gated": (
        "gated",
        "acme/gated-401 is gated: its owner wants a licence accepted first, and no token says that you did.",
        ("https://huggingface.co/acme/gated-401", "HF_TOKEN"),
    ),
    "gated_bad_token": ("gated", "the hub does not know the token in HF_TOKEN.", ("HF_TOKEN",)),
    "gated_no_access": (
        "gated",
        "acme/gated-403 is gated, and the account that HF_TOKEN belongs to has no access to it yet.",
        ("https://huggingface.co/acme/gated-403",),
    ),
    "killed": (
        "killed",
        "it was killed (SIGKILL), most likely by the system because memory ran out.",
        ("--kv-cache-memory-bytes", "--gpu-memory-utilization"),
    ),
    "killed_worker": (
        "killed",
        "a process of it ended without a word, most likely killed by the system because memory ran out.",
        ("smaller model",),
    ),
    "kv_cache_too_small": (
        "kv_cache_too_small",
        "a context of 32768 tokens needs 4.5 GiB of KV cache, and the 2.71 GiB left for it hold 19728 tokens.",
        ("--max-model-len 19728", "--gpu-memory-utilization", "--kv-cache-memory-bytes"),
    ),
    "missing_library": (
        "missing_library",
        "the library libcudart.so.13 is not on this machine.",
        ("CUDA",),
    ),
    "missing_library_compiler": (
        "missing_library",
        "there is no compiler to build its kernels with.",
        ("gcc", "--enforce-eager"),
    ),
    "missing_library_driver": (
        "missing_library",
        "the NVIDIA driver knows CUDA 12.4, and this vLLM was built for a newer one.",
        ("CUDA 12",),
    ),
    "missing_library_glibc": (
        "missing_library",
        "this system is too old for this vLLM: it has no GLIBC_2.34.",
        ("container",),
    ),
    "no_chat_template": (
        "no_chat_template",
        "there is no chat template at /models/llama3.jinja.",
        ("--chat-template",),
    ),
    "no_tokenizer": ("no_tokenizer", "/models/base holds no tokenizer that can be read.", ("--tokenizer",)),
    "not_found": (
        "not_found",
        "the hub has no model acme/missing, or shows it only to those who may see it.",
        ("https://huggingface.co/models", "HF_TOKEN"),
    ),
    "not_found_folder": (
        "not_found",
        "there is no folder /models/nothing-here, and the hub has no models of such a name.",
        ("config.json", "owner/model"),
    ),
    "offline": (
        "offline",
        "the model is not on this machine, and the hub cannot be reached.",
        ("HF_ENDPOINT", "HF_HUB_OFFLINE=1"),
    ),
    "offline_forbidden": (
        "offline",
        "the model is not on this machine, and HF_HUB_OFFLINE forbids to fetch it.",
        ("Unset HF_HUB_OFFLINE",),
    ),
    "other": (
        "other",
        "torch.AcceleratorError: CUDA error: device-side assert triggered.",
        ("https://github.com/vllm-project/vllm/issues",),
    ),
    "out_of_memory_cpu": (
        "out_of_memory",
        "of 23.41 GiB of memory only 12.07 GiB are free, and --gpu-memory-utilization 0.92, which counts without a "
        "GPU too, asks for 21.54 GiB.",
        ("--kv-cache-memory-bytes", "--gpu-memory-utilization 0.51"),
    ),
    "out_of_memory_graphs": (
        "out_of_memory",
        "GPU 0 ran out of memory while vLLM was capturing CUDA graphs: 50.00 MiB more were wanted, and of 23.64 GiB "
        "only 21.75 MiB were free.",
        ("Lower --gpu-memory-utilization", "--max-num-seqs"),
    ),
    "out_of_memory_taken": (
        "out_of_memory",
        "of the 23.64 GiB of cuda:0 only 3.22 GiB are free, and --gpu-memory-utilization 0.9 asks for 21.28 GiB.",
        ("--gpu-memory-utilization 0.13",),
    ),
    "out_of_memory_weights": (
        "out_of_memory",
        "GPU 0 ran out of memory while vLLM was loading the weights: 350.00 MiB more were wanted, and of 23.64 GiB "
        "only 212.81 MiB were free.",
        ("quantized", "--tensor-parallel-size"),
    ),
    "port_taken": ("port_taken", "port 8000 is taken by another program.", ("--port",)),
    "quantization_unsupported": (
        "quantization_unsupported",
        "this vLLM does not know the quantization q4_k_m.",
        ("--quantization", "llama.cpp"),
    ),
    "remote_code_needed": (
        "remote_code_needed",
        "qwen3:8b brings Python code of its own, and vLLM runs that only when it is told to.",
        ("--trust-remote-code",),
    ),
    "remote_code_needed_warned": (
        "remote_code_needed",
        "qwen3:8b brings Python code of its own, and vLLM runs that only when it is told to.",
        ("--trust-remote-code",),
    ),
    "tensor_parallel_gpus": (
        "tensor_parallel",
        "8 GPUs were asked for, and this machine shows 2.",
        ("--tensor-parallel-size", "CUDA_VISIBLE_DEVICES"),
    ),
    "tensor_parallel_heads": (
        "tensor_parallel",
        "the model's 4 attention heads do not split evenly over 7 GPUs.",
        ("--tensor-parallel-size that divides 4",),
    ),
    "transformers_too_old": (
        "transformers_too_old",
        "the transformers library beside vLLM does not know the model type fancy.",
        ("uv pip install -U vllm transformers",),
    ),
    "unknown_architecture": (
        "unknown_architecture",
        "vLLM does not know the architecture FancyForCausalLM.",
        ("Upgrade vLLM",),
    ),
}


def test_every_log_is_expected_and_every_code_has_a_log() -> None:
    assert {path.stem for path in LOGS.glob("*.txt") if not path.stem.startswith("start")} == set(FAILURES)
    assert {code for code, _, _ in FAILURES.values()} == set(get_args(FailureCode))


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_has_its_reason_and_what_to_do(name: str) -> None:
    code, reason, advice = FAILURES[name]
    failure = why(log(name), 1, model="qwen3:8b", port=8000)
    assert (failure.code, failure.reason) == (code, reason)
    assert [words for words in advice if words not in failure.do] == []
    assert failure.do[0].isupper() and failure.do.endswith((".", "issues."))


@pytest.mark.parametrize("name", FAILURES)
def test_the_tail_is_short_and_says_nothing_of_code(name: str) -> None:
    tail = why(log(name), 1).tail
    assert 1 <= len(tail) <= 6 and max(map(len, tail)) <= 300
    assert [line for line in tail if re.search(r"Traceback|^ *File \"|\^\^|See root cause above", line)] == []


@pytest.mark.parametrize(
    "name", ["kv_cache_too_small", "out_of_memory_graphs", "dtype_unsupported", "bad_weights"]
)
def test_the_cause_is_in_the_tail(name: str) -> None:
    causes = {
        "kv_cache_too_small": "To serve at least one request",
        "out_of_memory_graphs": "torch.OutOfMemoryError: CUDA out of memory.",
        "dtype_unsupported": "Bfloat16 is only supported",
        "bad_weights": "safetensors._safetensors_rust.SafetensorError: Error while deserializing header",
    }
    assert why(log(name), 1).tail[-1].startswith(causes[name])


def test_what_is_said_at_every_start_is_not_in_the_tail() -> None:
    lines = [
        "Triton is installed, but doesn't include CPU backend. Disabling Triton.",
        "(APIServer pid=7) WARNING 11-26 08:43:46 [system_utils.py:255] Found ulimit of 20000 and failed to "
        "automatically increase with error current limit exceeds maximum limit.",
        "entry.py: error: unrecognized arguments: --no-such-flag",
    ]
    assert why(lines, 2).tail == ("entry.py: error: unrecognized arguments: --no-such-flag",)


def test_the_first_exception_is_in_the_tail_however_much_comes_after() -> None:
    lines = [
        *raised("ValueError: the first thing that went wrong"),
        *(f"then number {n} went" for n in range(50)),
    ]
    failure = why(lines, 1)
    assert failure.reason == "the first thing that went wrong."
    assert failure.tail[0] == "the first thing that went wrong" and failure.tail[-1] == "then number 49 went"


def test_the_first_exception_is_the_cause_and_not_the_last() -> None:
    lines = [
        *raised("OSError: [Errno 28] No space left on device"),
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        *raised("RuntimeError: CUDA out of memory."),
    ]
    assert why(lines, 1).code == "disk_full"


def test_a_caught_exception_is_not_the_cause() -> None:
    mark = "(APIServer pid=7) ERROR 11-26 01:58:27 [registry.py:1041] "
    lines = [
        f"{mark}Error saving model info cache.",
        *(mark + line for line in raised("OSError: [Errno 28] No space left on device")),
        *raised("ValueError: another thing"),
    ]
    assert why(lines, 1).reason == "another thing."


def test_an_engine_that_dies_while_it_serves() -> None:
    """A death later is told in the same way: the engine's own exception, not those of who waited for it."""
    mark = "(EngineCore pid=7) ERROR 11-26 01:58:27 [core.py:1512] "
    dead = (
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)"
    )
    lines = [
        'INFO:     127.0.0.1:52504 - "POST /v1/chat/completions HTTP/1.1" 200 OK',
        f"{mark}EngineCore encountered a fatal error.",
        *(mark + line for line in raised("torch.AcceleratorError: CUDA error: an illegal memory access")),
        *raised(dead),
    ]
    failure = why(lines, 1)
    assert failure.reason == "torch.AcceleratorError: CUDA error: an illegal memory access."
    assert failure.tail[-1] == failure.reason.removesuffix(".")


def test_a_line_without_a_traceback_may_be_the_cause() -> None:
    assert (
        why(["/opt/venv/bin/python3: No module named vllm"], 1).reason == "there is no vLLM in this Python."
    )
    assert why(["terminate called", "  what():  std::bad_alloc"], -6).code == "other"
    assert (
        why(["terminate called after throwing an instance of 'std::bad_alloc'"], None).code == "out_of_memory"
    )


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        (-9, "killed", "SIGKILL"),
        (137, "killed", "SIGKILL"),
        (-11, "other", "crashed (SIGSEGV)"),
        (-4, "other", "SIGILL"),
        (-7, "other", "/dev/shm"),
        (-15, "other", "ended from outside (SIGTERM)"),
        (-99, "other", "crashed (signal 99)"),
        (1, "other", "without a word (exit code 1)"),
        (0, "other", "without a word (exit code 0)"),
        (None, "other", "without a word"),
    ],
)
def test_nothing_said(code: int | None, expected: str, words: str) -> None:
    failure = why([], code)
    assert failure.code == expected and words in failure.reason and failure.tail == ()


def test_a_kill_of_our_own_does_not_hide_what_was_said() -> None:
    assert why(log("port_taken"), -9, port=11500).reason == "port 11500 is taken by another program."
    assert why(raised("ValueError: odd"), -9).reason == "odd."


EXAMPLES: list[tuple[FailureCode, str]] = [
    (
        "port_taken",
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. "
        "port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
    ),
    ("disk_full", "OSError: [Errno 28] No space left on device: '/dev/shm/psm_1b2c'"),
    ("missing_library", "RuntimeError: CUDA driver version is insufficient for CUDA runtime version"),
    ("missing_library", "RuntimeError: Failed to infer device type, please set the environment variable"),
    (
        "missing_library",
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
    ),
    ("missing_library", "ImportError: /opt/vllm/_C.abi3.so: undefined symbol: _ZN3c105ErrorC2E"),
    ("missing_library", "ModuleNotFoundError: No module named 'vllm'"),
    ("missing_library", "ModuleNotFoundError: No module named 'flashinfer.comm'"),
    ("missing_library", "importlib.metadata.PackageNotFoundError: No package metadata was found for vllm"),
    ("gated", "OSError: You are trying to access a gated repo.\nMake sure to have access to it"),
    ("gated", "HfHubHTTPError: 403 Forbidden: None.\nMake sure your token has the correct permissions."),
    (
        "not_found",
        "RevisionNotFoundError: 404 Client Error.\nRevision Not Found for url: https://huggingface.co/a/b.",
    ),
    ("not_found", "ValueError: Invalid repository ID or local directory specified: '/models/empty'."),
    ("not_found", "RuntimeError: Cannot find any model weights with `/models/gguf-only`"),
    (
        "not_found",
        "OSError: /models/x does not appear to have a file named preprocessor_config.json. Checkout 'https",
    ),
    (
        "offline",
        "huggingface_hub.errors.HfHubHTTPError: 429 Too Many Requests for url: https://huggingface.co/a/b.",
    ),
    (
        "offline",
        "httpx2.HTTPStatusError: Server error '503 Service Unavailable' for url 'https://huggingface.co/a'",
    ),
    ("offline", "httpx2.ReadTimeout: The read operation timed out"),
    ("no_tokenizer", "ValueError: Couldn't instantiate the backend tokenizer from one of: "),
    (
        "no_chat_template",
        "ValueError: As of transformers v4.44, default chat template is no longer allowed, so",
    ),
    (
        "bad_weights",
        "FileNotFoundError: Weight files referenced in index but missing: {'/m/model-2.safetensors'}",
    ),
    ("bad_weights", "ValueError: Following weights were not initialized from checkpoint: {'lm_head.weight'}"),
    (
        "bad_weights",
        "ValueError: There is no module or parameter named 'lora_A' in Qwen3ForCausalLM. The available",
    ),
    ("bad_weights", "OSError: It looks like the config file at '/m/config.json' is not a valid JSON file."),
    (
        "transformers_too_old",
        "ValueError: Tokenizer class FancyTokenizer does not exist or is not currently imported.",
    ),
    (
        "unknown_architecture",
        "ValueError: Model architecture MllamaForConditionalGeneration was supported in vLLM until v0.10.2, and is not",
    ),
    (
        "unknown_architecture",
        "ValueError: Model architecture X is not supported in-tree anymore. Please install the plugin at https://a/b if",
    ),
    (
        "unknown_architecture",
        "ValueError: Model architectures ['X'] failed to be inspected. Please check the logs",
    ),
    (
        "unknown_architecture",
        "ValueError: Unrecognized model in /m. Should have a `model_type` key in its config.json.",
    ),
    ("unknown_architecture", "ValueError: No model architectures are specified"),
    (
        "kv_cache_too_small",
        "ValueError: To serve at least one request with the model's max seq len (8192), (1.0 GiB KV cache is needed, "
        "which is larger than the available KV cache memory (0.01 GiB). Try increasing `gpu_memory_utilization`",
    ),
    ("kv_cache_too_small", "ValueError: No available memory for the cache blocks. Try increasing"),
    (
        "out_of_memory",
        "ValueError: Available memory on node 0 (9.1/23.4 GiB) on kv cache allocation is less than requested memory "
        "for kv (40.0 GiB). Decrease --kv-cache-memory-bytes",
    ),
    (
        "out_of_memory",
        "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes.",
    ),
    ("out_of_memory", "MemoryError"),
    ("out_of_memory", "RuntimeError: CUDA error: out of memory"),
    (
        "dtype_unsupported",
        "ValueError: Intel Arc A770 have bfloat16 accuracy known issue. You can use float16",
    ),
    (
        "dtype_unsupported",
        "ValueError: torch.bfloat16 is not supported for quantization method gptq. Supported dtypes: [torch.float16]",
    ),
    (
        "dtype_unsupported",
        "ValueError: The model type 'gemma3' does not support float16. Reason: Numerical instability.",
    ),
    ("dtype_unsupported", "ValueError: Unknown dtype: 'float17'"),
    ("quantization_unsupported", "ValueError: awq quantization is currently not supported in cpu."),
    (
        "quantization_unsupported",
        "ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 89. Current "
        "capability: 75.",
    ),
    (
        "quantization_unsupported",
        "ValueError: Quantization method specified in the model config (awq) does not match the quantization method "
        "specified in the `quantization` argument (gptq).",
    ),
    (
        "quantization_unsupported",
        "ValueError: ('The quantization method %s is deprecated and will be removed', 'x')",
    ),
    ("tensor_parallel", "ValueError: Tensor parallel size 16 is greater than the number of experts 8."),
    ("tensor_parallel", "torch.AcceleratorError: CUDA error: invalid device ordinal"),
    ("tensor_parallel", "AssertionError: 4304 is not divisible by 3"),
    ("bad_argument", "vllm serve: error: argument --port: invalid int value: 'abc'"),
    ("bad_argument", "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser"),
    ("bad_argument", "KeyError: 'invalid tool call parser: herms (chose from { apertus,hermes,hf,xlam })'"),
    (
        "bad_argument",
        "ValueError: max_num_batched_tokens (2048) is smaller than max_model_len (4096). This effectively",
    ),
    (
        "bad_argument",
        "ValueError: max_num_batched_tokens (64) must be greater than or equal to max_num_seqs (256).",
    ),
    (
        "other",
        "AssertionError: Error in memory profiling. Initial free memory 20.1 GiB, current free memory 22.3 GiB.",
    ),
    (
        "other",
        "TimeoutError: Timed out waiting for engine core processes to start. This is often. Waited 600s (config",
    ),
]


@pytest.mark.parametrize(("code", "text"), EXAMPLES)
def test_what_else_may_be_raised(code: str, text: str) -> None:
    failure = why(raised(text), 1, model="qwen3:8b")
    assert failure.code == code
    assert "?" not in failure.reason + failure.do and "Portico does not know" not in failure.do


def test_every_known_cause_is_met_here() -> None:
    texts = [text for _, text in EXAMPLES]
    for name in FAILURES:
        complaints, _ = scan(log(name))
        texts += [complaint.text for complaint in complaints]
    met = {next((cause for cause in CAUSES if cause.sign.search(text)), None) for text in texts}
    assert [cause.sign.pattern for cause in CAUSES if cause not in met] == []


def test_nearest_of_what_there_is() -> None:
    failure = why(
        raised("KeyError: 'invalid tool call parser: herms (chose from { apertus,hermes,hf,xlam })'"), 1
    )
    assert (
        failure.reason == "vLLM has no tool call parser herms."
        and failure.do == "Give one of hermes, apertus and so on."
    )


def test_every_sentence_names_what_it_has() -> None:
    """A field that no group and no default fills would be shown as a question mark."""
    filled = {
        "model",
        "repo",
        "type",
        "dtype",
        "path",
        "hub",
        "method",
        "width",
        "device",
        "port",
        "doing",
        "relief",
    }
    filled |= {"or_share", "gib", "nearest", "choices", "needs_minor", "has_minor"}
    for cause in CAUSES:
        named = {field for text in cause[2:] for _, field, _, _ in Formatter().parse(text) if field}
        assert named <= filled | set(cause.sign.groupindex), cause.sign.pattern


CUT = st.tuples(st.sampled_from(ALL_LINES), st.integers(0, 400), st.integers(0, 4096)).map(
    lambda it: it[0][it[1] : it[2]]
)
ANY_LINES = st.lists(st.one_of(st.text(max_size=80), st.sampled_from(ALL_LINES), CUT), max_size=40)
EXIT_CODES = st.one_of(st.none(), st.integers(-70, 300))


@given(ANY_LINES, EXIT_CODES, st.text(max_size=20), st.one_of(st.none(), st.integers(0, 65535)))
@settings(deadline=None, max_examples=300)
def test_there_is_always_a_reason(lines: list[str], code: int | None, model: str, port: int | None) -> None:
    failure = why(lines, code, model=model, port=port)
    assert failure.code in get_args(FailureCode)
    assert failure.reason.strip(" .") and failure.do.strip(" .") and "\n" not in failure.reason
    assert len(failure.tail) <= 6 and all(len(line) <= 300 for line in failure.tail)
    assert msgspec.json.decode(msgspec.json.encode(failure), type=Failure) == failure


@given(ANY_LINES)
@settings(deadline=None)
def test_any_lines_have_stages_and_facts(lines: list[str]) -> None:
    stages = Stages()
    for line in lines:
        stages.feed(line)
        assert stage(line) is None or stage(line).name in STAGES  # type: ignore[union-attr]
        assert heard(line) == Heard() or heard(line).with_all_of(Heard()) == heard(line)


# ---- do they still say it? ---------------------------------------------------------------------


def filled(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    return "'7'" if isinstance(part, ast.FormattedValue) and part.conversion == ord("r") else "7"


@cache
def messages(path: Path) -> tuple[str, ...]:
    """The texts in a module's source, as they would be written with a 7 for whatever is filled in."""
    texts = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(map(filled, node.values)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(re.sub(r"%(?:\.\d+)?[sdf]|\{\w*\}", "7", node.value))
    return tuple(texts)


def written(python: Path, path: str, words: str) -> str:
    """The text in an installed file that holds these words; for compiled code, the words with something after."""
    environment = python.parent.parent
    for packages in (*environment.glob("lib/python*/site-packages"), environment / "Lib" / "site-packages"):
        file = packages / path
        if file.suffix == ".so" and file.exists():
            return f"{words}7 bytes" if words.encode() in file.read_bytes() else ""
        if file.exists():
            return next((text for text in messages(file) if words in text), "")
    return ""


KV = "vllm/v1/core/kv_cache_utils.py"
RUNNERS = ("vllm/v1/worker/gpu_model_runner.py", "vllm/v1/worker/gpu/model_runner.py")
WEIGHTS = "vllm/model_executor/model_loader/weight_utils.py"
MODEL = "vllm/config/model.py"
REGISTRY = "vllm/model_executor/models/registry.py"
HUB = "transformers/utils/hub.py"
DOWNLOAD = "huggingface_hub/file_download.py"
LAUNCHER = "vllm/entrypoints/launchers/launcher.py"

STILL_RAISED: list[tuple[FailureCode, str, str]] = [
    ("gated", "huggingface_hub/utils/_http.py", "Cannot access gated repo for url"),
    ("gated", "huggingface_hub/utils/_http.py", "Make sure your token has the correct permissions"),
    ("gated", HUB, "You are trying to access a gated repo"),
    ("not_found", "huggingface_hub/utils/_http.py", "Repository Not Found for url"),
    ("not_found", "huggingface_hub/utils/_http.py", "Revision Not Found for url"),
    ("not_found", "huggingface_hub/utils/_validators.py", "Repo id must be in the form"),
    ("not_found", HUB, "is not a local folder and is not a valid model identifier"),
    ("not_found", HUB, "is not a valid git identifier"),
    ("not_found", HUB, "7 does not appear to have a file named 7. Checkout"),
    (
        "not_found",
        "vllm/transformers_utils/config.py",
        "Invalid repository ID or local directory specified: '7'",
    ),
    (
        "not_found",
        "vllm/model_executor/model_loader/default_loader.py",
        "Cannot find any model weights with `7`",
    ),
    ("offline", DOWNLOAD, "outgoing traffic has been disabled"),
    ("offline", DOWNLOAD, "An error happened while trying to locate the file on the Hub"),
    ("offline", "huggingface_hub/_snapshot_download.py", "outgoing traffic has been disabled"),
    (
        "offline",
        "huggingface_hub/_snapshot_download.py",
        "An error happened while trying to locate the files on the Hub",
    ),
    ("offline", "huggingface_hub/utils/_http.py", "offline mode is enabled"),
    ("offline", "huggingface_hub/utils/_http.py", "429 Too Many Requests"),
    ("offline", HUB, "We couldn't connect to '7' to load the files"),
    ("no_tokenizer", "transformers/tokenization_utils_base.py", "Can't load tokenizer for '7'"),
    (
        "no_tokenizer",
        "transformers/tokenization_utils_tokenizers.py",
        "Couldn't instantiate the backend tokenizer",
    ),
    ("no_tokenizer", "transformers/models/auto/tokenization_auto.py", "to build an AutoTokenizer"),
    (
        "no_tokenizer",
        "transformers/models/auto/tokenization_auto.py",
        "specified in the tokenizer config was not found",
    ),
    (
        "no_chat_template",
        "vllm/renderers/chat_utils.py",
        "supplied chat template string (7) appears path-like",
    ),
    ("no_chat_template", "vllm/renderers/chat_utils.py", "supplied chat template path doesn't exist"),
    ("no_chat_template", "vllm/renderers/hf.py", "default chat template is no longer allowed"),
    ("bad_weights", "safetensors/_safetensors_rust.abi3.so", "Error while deserializing header: "),
    ("bad_weights", WEIGHTS, "Weight files referenced in index but missing: 7"),
    (
        "bad_weights",
        "vllm/model_executor/model_loader/default_loader.py",
        "Following weights were not initialized from",
    ),
    ("bad_weights", "vllm/model_executor/models/utils.py", "There is no module or parameter named '7' in 7"),
    ("bad_weights", "transformers/configuration_utils.py", "the config file at '7' is not a valid JSON file"),
    ("bad_weights", "torch/lib/libtorch_cpu.so", "PytorchStreamReader failed"),
    (
        "remote_code_needed",
        "transformers/dynamic_module_utils.py",
        "`trust_remote_code=True` to allow custom code",
    ),
    ("remote_code_needed", "vllm/transformers_utils/config.py", "setting `trust_remote_code=True` in LLM"),
    ("remote_code_needed", "vllm/tokenizers/hf.py", "setting `trust_remote_code=True` in LLM"),
    (
        "transformers_too_old",
        "transformers/models/auto/configuration_auto.py",
        "has model type `7` but Transformers does not recognize this architecture",
    ),
    (
        "transformers_too_old",
        "transformers/models/auto/tokenization_auto.py",
        "Tokenizer class 7 is not currently imported",
    ),
    ("unknown_architecture", REGISTRY, "Model architectures 7 are not supported for now"),
    ("unknown_architecture", REGISTRY, "Model architecture 7 was supported in vLLM until v7, and"),
    (
        "unknown_architecture",
        REGISTRY,
        "Model architecture 7 is not supported in-tree anymore. Please install the plugin",
    ),
    ("unknown_architecture", REGISTRY, "Model architectures 7 failed to be inspected"),
    ("unknown_architecture", REGISTRY, "No model architectures are specified"),
    ("unknown_architecture", REGISTRY, "Cannot find model module. "),
    (
        "unknown_architecture",
        "transformers/models/auto/configuration_auto.py",
        "Unrecognized model in 7. Should have a `model_type`",
    ),
    (
        "context_too_long",
        MODEL,
        "User-specified max_model_len (7) is greater than the derived max_model_len (7=7",
    ),
    (
        "kv_cache_too_small",
        KV,
        "max seq len (7), (7 GiB KV cache is needed, which is larger than the available KV cache",
    ),
    ("kv_cache_too_small", KV, "No available memory for the cache blocks"),
    ("kv_cache_too_small", KV, "not enough GPU memory available to serve even a single token"),
    (
        "out_of_memory",
        "vllm/v1/worker/utils.py",
        "(7/7 GiB) on startup is less than desired GPU memory utilization (7, 7",
    ),
    (
        "out_of_memory",
        "vllm/v1/worker/cpu_worker.py",
        "is less than desired CPU memory utilization (7, 7 GiB)",
    ),
    (
        "out_of_memory",
        "vllm/v1/worker/cpu_worker.py",
        "on kv cache allocation is less than requested memory for kv (7",
    ),
    ("out_of_memory", RUNNERS[0], "Failed to load model - not enough GPU memory."),
    ("out_of_memory", RUNNERS[0], "CUDA out of memory occurred when warming up sampler"),
    (
        "dtype_unsupported",
        "vllm/platforms/cuda.py",
        "Bfloat16 is only supported on GPUs with compute capability of at least",
    ),
    (
        "dtype_unsupported",
        "vllm/config/vllm.py",
        "7 is not supported for quantization method 7. Supported dtypes: 7",
    ),
    ("dtype_unsupported", MODEL, "The model type '7' does not support float16"),
    ("dtype_unsupported", MODEL, "Unknown dtype: '7'"),
    ("quantization_unsupported", MODEL, "Unknown quantization method: 7. Must be one of"),
    (
        "quantization_unsupported",
        "vllm/platforms/interface.py",
        "7 quantization is currently not supported in 7.",
    ),
    (
        "quantization_unsupported",
        "vllm/config/vllm.py",
        "is not supported for the current GPU. Minimum capability: 7.",
    ),
    (
        "quantization_unsupported",
        MODEL,
        "specified in the model config (7) does not match the quantization method",
    ),
    ("quantization_unsupported", MODEL, "The quantization method 7 is deprecated"),
    (
        "tensor_parallel",
        MODEL,
        "Total number of attention heads (7) must be divisible by tensor parallel size (7)",
    ),
    (
        "tensor_parallel",
        "vllm/config/parallel.py",
        "World size (7) is larger than the number of available GPUs (7)",
    ),
    (
        "tensor_parallel",
        "vllm/model_executor/models/qwen3_moe.py",
        "Tensor parallel size 7 is greater than the number of",
    ),
    ("tensor_parallel", "vllm/distributed/utils.py", "7 is not divisible by 7"),
    (
        "tensor_parallel",
        "vllm/model_executor/layers/quantization/auto_awq.py",
        "caused by too large tensor parallel size",
    ),
    (
        "bad_argument",
        "vllm/entrypoints/launchers/cli_args.py",
        "--enable-auto-tool-choice requires --tool-call-parser",
    ),
    ("bad_argument", LAUNCHER, "invalid tool call parser: 7 (chose from { 7"),
    ("bad_argument", LAUNCHER, "invalid reasoning parser: 7 (chose from { 7"),
    (
        "bad_argument",
        "vllm/config/scheduler.py",
        "max_num_batched_tokens (7) is smaller than max_model_len (7)",
    ),
    (
        "bad_argument",
        "vllm/config/scheduler.py",
        "max_num_batched_tokens (7) must be greater than or equal to max_num_seqs",
    ),
    ("missing_library", "vllm/config/device.py", "Failed to infer device type"),
    ("missing_library", "torch/cuda/__init__.py", "Torch not compiled with CUDA enabled"),
    ("missing_library", "torch/cuda/__init__.py", "libcudart functions unavailable"),
    ("missing_library", "torch/_inductor/exc.py", "No working C++ compiler found in"),
    (
        "out_of_memory",
        "torch/lib/libc10.so",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate ",
    ),
    ("port_taken", "torch/lib/libtorch_cpu.so", "failed to listen on any local network address. port: "),
    (
        "other",
        "vllm/v1/worker/gpu_worker.py",
        "Error in memory profiling. Initial free memory 7 GiB, current free memory 7",
    ),
    ("other", "vllm/v1/engine/core_client.py", "Timed out waiting for engine core processes to start."),
]


@pytest.mark.parametrize(("code", "path", "words"), STILL_RAISED)
def test_vllm_still_raises_it(vllm_python: Path, code: str, path: str, words: str) -> None:
    text = written(vllm_python, path, words)
    assert text, f"{path} does not say: {words}"
    assert why(raised(f"ValueError: {text}"), 1).code == code


STILL_LOGGED: list[tuple[str, str, str]] = [
    ("starting", "vllm/entrypoints/serve/utils/api_utils.py", "non-default args: "),
    ("starting", MODEL, "Resolved architecture: 7"),
    ("starting", "vllm/v1/engine/core.py", "Initializing a V1 LLM engine (v7) with config: "),
    ("loading weights", "vllm/v1/worker/cpu_model_runner.py", "Starting to load model 7..."),
    ("loading weights", RUNNERS[0], "Starting to load model 7..."),
    (
        "loading weights",
        "vllm/model_executor/model_loader/base_loader.py",
        "Initializing model took 7 seconds",
    ),
    ("loading weights", WEIGHTS, "Time spent downloading weights for 7: 7 seconds"),
    ("loading weights", WEIGHTS, "Filesystem type for checkpoints: 7. Checkpoint size: 7 GiB."),
    ("loading weights", WEIGHTS, "Loading safetensors checkpoint shards"),
    ("loading weights", WEIGHTS, "Loading pt checkpoint shards"),
    ("loading weights", WEIGHTS, "Multi-thread loading shards"),
    (
        "loading weights",
        "vllm/model_executor/model_loader/default_loader.py",
        "Loading weights took 7 seconds",
    ),
    ("loading weights", RUNNERS[0], "Model loading took 7 GiB memory and 7 seconds"),
    ("loading weights", RUNNERS[1], "Model loading took 7 GiB memory and 7 seconds"),
    ("compiling", "vllm/compilation/backends.py", "Using cache directory: 7 for vLLM's torch.compile"),
    ("compiling", "vllm/compilation/backends.py", "Dynamo bytecode transform time: 7 s"),
    ("compiling", "vllm/compilation/backends.py", "Directly load the compiled graph(s)"),
    ("compiling", "vllm/compilation/backends.py", "Compiling a graph for compile range 7 takes 7 s"),
    ("compiling", "vllm/compilation/monitor.py", "torch.compile took 7 s in total"),
    ("compiling", "vllm/compilation/monitor.py", "7Starting torch.compile"),
    ("compiling", "vllm/compilation/decorators.py", "saved AOT compiled function to 7"),
    ("compiling", "vllm/v1/worker/cpu_model_runner.py", "Warming up model for the compilation..."),
    ("profiling memory", "vllm/compilation/monitor.py", "Initial profiling/warmup run took 7 s"),
    ("profiling memory", RUNNERS[0], "Profiling CUDA graph memory: 7"),
    ("profiling memory", RUNNERS[0], "Estimated CUDA graph memory: 7 GiB total"),
    ("profiling memory", "vllm/v1/worker/gpu_worker.py", "Available KV cache memory: 7 GiB"),
    (
        "profiling memory",
        "vllm/v1/worker/gpu_worker.py",
        "Initial free memory 7 GiB, reserved 7 GiB memory for KV Cache",
    ),
    ("profiling memory", "vllm/v1/worker/cpu_worker.py", "Explicitly set (7/7) GiB for KV cache"),
    ("profiling memory", "vllm/v1/worker/cpu_worker.py", "Auto set (7/7) GiB for KV cache"),
    ("profiling memory", KV, "7 KV cache size: 7 tokens, Maximum concurrency for 7 tokens per request: 7x"),
    ("tuning kernels", "vllm/model_executor/warmup/kernel_warmup.py", "JIT kernel warmup starting."),
    ("tuning kernels", "vllm/model_executor/warmup/kernel_warmup.py", "Running FlashInfer autotune with"),
    ("tuning kernels", "vllm/model_executor/warmup/deep_gemm_warmup.py", "DeepGEMM warmup"),
    ("tuning kernels", "vllm/v1/worker/gpu_worker.py", "Compile and warming up model for size 7"),
    ("capturing graphs", RUNNERS[0], "Capturing CUDA graphs (7, 7)"),
    ("capturing graphs", "vllm/v1/worker/gpu/cudagraph_utils.py", "Capturing CUDA graphs"),
    ("warming up", "vllm/v1/engine/core.py", "init engine (profile, create kv cache, warmup model) took 7 s"),
    ("warming up", "vllm/entrypoints/launchers/api_server/entry.py", "Starting vLLM server on 7"),
    ("ready", "uvicorn/lifespan/on.py", "Application startup complete."),
]


@pytest.mark.parametrize(("name", "path", "words"), STILL_LOGGED)
def test_vllm_still_logs_it(vllm_python: Path, name: str, path: str, words: str) -> None:
    text = written(vllm_python, path, words)
    assert text, f"{path} does not say: {words}"
    # A tag of the compiled part, "[7] ", is left out where there is none.
    found = stage(re.sub(r"^7(?=[A-Za-z])", "", text))
    assert found is not None and found.name == name


STILL_TOLD: list[tuple[str, str, str]] = [
    ("version", "vllm/v1/engine/core.py", "Initializing a V1 LLM engine (v7) with config: "),
    ("context", MODEL, "Using max model len 7"),
    ("context", KV, "Auto-fit max_model_len: reduced from 7 to 7 to fit"),
    ("checkpoint_gib", WEIGHTS, "Filesystem type for checkpoints: 7. Checkpoint size: 7 GiB."),
    ("download_seconds", WEIGHTS, "Time spent downloading weights for 7: 7 seconds"),
    ("load_seconds", "vllm/model_executor/model_loader/default_loader.py", "Loading weights took 7 seconds"),
    ("weights_gib", RUNNERS[0], "Model loading took 7 GiB memory and 7 seconds"),
    ("weights_gib", RUNNERS[1], "Model loading took 7 GiB memory and 7 seconds"),
    ("compile_seconds", "vllm/compilation/monitor.py", "torch.compile took 7 s in total"),
    ("kv_cache_gib", "vllm/v1/worker/gpu_worker.py", "Available KV cache memory: 7 GiB"),
    (
        "kv_cache_gib",
        "vllm/v1/worker/gpu_worker.py",
        "Initial free memory 7 GiB, reserved 7 GiB memory for KV Cache",
    ),
    ("kv_cache_gib", "vllm/v1/worker/cpu_worker.py", "Explicitly set (7/7) GiB for KV cache"),
    ("kv_cache_tokens", KV, "7 KV cache size: 7 tokens, Maximum concurrency for 7 tokens per request: 7x"),
    ("concurrency", KV, "7 KV cache size: 7 tokens, Maximum concurrency for 7 tokens per request: 7x"),
    ("graphs_gib", RUNNERS[0], "Graph capturing finished in 7 secs, took 7 GiB"),
    ("graphs_seconds", RUNNERS[1], "Graph capturing finished in 7 secs, took 7 GiB"),
    (
        "engine_seconds",
        "vllm/v1/engine/core.py",
        "init engine (profile, create kv cache, warmup model) took 7 s",
    ),
]


@pytest.mark.parametrize(("fact", "path", "words"), STILL_TOLD)
def test_vllm_still_tells_it(vllm_python: Path, fact: str, path: str, words: str) -> None:
    text = re.sub(r"^7(?=[a-z])", "", written(vllm_python, path, words))
    assert text, f"{path} does not say: {words}"
    value = getattr(heard(text), fact)
    assert value == ("7" if fact == "version" else 7)


STILL_AROUND: list[tuple[str, str]] = [
    (
        "vllm/logger.py",
        "(7(vllm_process_name)s pid=7(process)d) 7(levelname)s 7(asctime)s [7(fileinfo)s:7(lineno)d] 7",
    ),
    ("vllm/v1/engine/core.py", "EngineCore failed to start."),
    ("vllm/v1/executor/multiproc_executor.py", "WorkerProc failed to start."),
    (
        "vllm/v1/executor/multiproc_executor.py",
        "WorkerProc initialization failed due to an exception in a background",
    ),
    ("vllm/v1/executor/multiproc_executor.py", "died unexpectedly (exit code: 7)"),
    (
        "vllm/v1/engine/utils.py",
        "Engine core initialization failed. See root cause above. Failed core proc(s): 7",
    ),
    (WEIGHTS, "% Completed | "),
    (REGISTRY, "Error saving model info cache."),
]


@pytest.mark.parametrize(("path", "words"), STILL_AROUND)
def test_vllm_still_writes_around_it(vllm_python: Path, path: str, words: str) -> None:
    words = words.replace("7(", "%(").replace("] 7", "] %(message)s") if "process_name" in words else words
    assert written(vllm_python, path, words)
