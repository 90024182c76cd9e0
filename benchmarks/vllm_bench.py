"""What the server costs before vLLM: tokens/s through it against vLLM's own HTTP server.

    python benchmarks/vllm_bench.py --vllm-python /path/to/python --connections 1,5,10,50 --repeat 3

As engine_bench.py does for the embedded engine: two vLLMs hold the same model with the same parameters, one of them
started by Portico, both on one core, Portico and the client on another, and they take turns. The model has 100 million
random weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from driver import add_arguments, machine, prepared, say
from processes import Child, ChildFailed, free_port, processes, tree
from targets import BUILD, ROOT, Place, versions, wait_ready
from turns import Found, Way, ask, printed, table, take_turns, verdicts

TINY = ROOT / "models" / "portico-tiny"
CONTEXT = 1024
# Qwen3-shaped, 100 million weights with the vocabulary of portico-tiny.
SHAPE = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 768,
    "intermediate_size": 2432,
    "num_hidden_layers": 14,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
# Run by vLLM's Python, which has torch and safetensors.
WRITE = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import save_file
folder = Path(sys.argv[1]); c = json.loads((folder / "config.json").read_text())
torch.manual_seed(1)
h, f, d = c["hidden_size"], c["intermediate_size"], c["head_dim"]
q, k = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
def matrix(rows, columns): return (torch.randn(rows, columns) / columns ** 0.5).bfloat16()
def ones(n): return torch.ones(n).bfloat16()
state = {"model.embed_tokens.weight": matrix(c["vocab_size"], h), "model.norm.weight": ones(h)}
for at in range(c["num_hidden_layers"]):
    for name, value in {"self_attn.q_proj": matrix(q, h), "self_attn.k_proj": matrix(k, h), "self_attn.v_proj": matrix(k, h),
        "self_attn.o_proj": matrix(h, q), "mlp.gate_proj": matrix(f, h), "mlp.up_proj": matrix(f, h), "mlp.down_proj": matrix(h, f),
        "self_attn.q_norm": ones(d), "self_attn.k_norm": ones(d), "input_layernorm": ones(h), "post_attention_layernorm": ones(h)}.items():
        state[f"model.layers.{at}.{name}.weight"] = value
save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
print(sum(value.numel() for value in state.values()))
"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    python: str  # vLLM's
    model: Path
    sequences: int  # computed at once


def random_checkpoint(place: Place, python: str) -> Path:
    """Made once, kept in the benchmark's home."""
    folder = place.home / "models" / "random-100m"
    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "generation_config.json",
        ):
            (folder / name).write_bytes((TINY / name).read_bytes())
        vocabulary = json.loads((TINY / "config.json").read_text())["vocab_size"]
        (folder / "config.json").write_text(json.dumps({**SHAPE, "vocab_size": vocabulary}))
        made = subprocess.run([python, "-c", WRITE, str(folder)], check=True, capture_output=True, text=True)
        say(f"{folder}: {int(made.stdout):,} weights")
    return folder


def arguments_of_vllm(setting: Setting) -> list[str]:
    """What both are told, in Portico's words and vLLM's alike."""
    return ["--max-num-seqs", str(setting.sequences), "--max-model-len", str(CONTEXT)]


@contextlib.contextmanager
def directly(place: Place, setting: Setting) -> Iterator[Way]:
    """vLLM with the arguments that Portico gives it, on a port."""
    port = free_port()
    command = [setting.python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(setting.model)]
    command += [
        "--served-model-name",
        "direct",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--enforce-eager",
    ]
    command += ["--enable-prefix-caching", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    environ = {
        "VLLM_API_KEY": place.key,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = place.folder("direct") / "engine.log"
    command += arguments_of_vllm(setting)
    with Child(command, cores=place.proxy_cores, log=log, env={**os.environ, **environ}) as child:
        wait_ready(child, port, place, seconds=300)
        yield Way(name="direct", port=port, key=place.key, model="direct", server=None)


@contextlib.contextmanager
def through_portico(place: Place, setting: Setting) -> Iterator[Way]:
    """Portico beside the client, its engine's processes moved to the engine's core."""
    folder, port = place.folder("portico"), free_port()
    home = folder / "home"
    environ = {**os.environ, "PORTICO_HOME": str(home), "OMP_NUM_THREADS": "1"}
    adopt = [
        place.portico_python,
        "-m",
        "portico",
        "engines",
        "install",
        "vllm-cpu",
        "--python",
        setting.python,
    ]
    subprocess.run(adopt, check=True, env=environ, capture_output=True)
    command = [place.portico_python, "-m", "portico", "serve", str(setting.model), "--engine", "vllm"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--api-key", place.key, "--keep-alive=-1"]
    command += arguments_of_vllm(setting)
    with Child(command, cores=place.load_cores, log=folder / "target.log", env=environ) as child:
        wait_ready(child, port, place, seconds=600)
        way = Way(name="portico", port=port, key=place.key, model="default", server=child.pid)
        ask(way, place, connections=1, requests=1, tokens=1)  # it listens before its model is loaded
        move_engine(child.pid, place)
        yield way


def move_engine(server: int, place: Place) -> None:
    """Every thread of every process below the server; those they make later inherit the core."""
    engines = [pid for pid in tree(server, processes()) if pid != server]
    if len(engines) < 2:
        raise ChildFailed(f"expected vLLM's processes below the server, found {len(engines)}")
    for pid in engines:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), place.proxy_cores)


def measure(place: Place, setting: Setting, options: argparse.Namespace) -> Found:
    found: Found = {}
    with directly(place, setting) as direct, through_portico(place, setting) as portico:
        take_turns(direct, portico, place, options, found, lambda number: max(1, options.requests // number))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure Portico before vLLM.")
    parser.add_argument("--vllm-python", required=True, help="a Python with vLLM for CPUs")
    parser.add_argument("--connections", default="1,5,10,50", help="comma-separated")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each; medians are shown")
    parser.add_argument("--tokens", type=int, default=64, help="length of every reply")
    parser.add_argument("--requests", type=int, default=16, help="of a turn, at least one a connection")
    parser.add_argument("--sequences", type=int, default=64, help="--max-num-seqs of each engine")
    parser.add_argument("--output", type=Path, default=BUILD / "vllm.json", help="where the JSON goes")
    add_arguments(parser)
    options = parser.parse_args()
    with prepared(options) as place:
        began = datetime.now(UTC)
        model = random_checkpoint(place, options.vllm_python)
        setting = Setting(python=options.vllm_python, model=model, sequences=options.sequences)
        found = measure(place, setting, options)
        measured_on, found_versions = machine(place), versions(["portico"], place)
    decided = verdicts(found)
    used = ", ".join(f"{name} {version}" for name, version in found_versions.items())
    print(f"\n{measured_on['cpu']}, Linux {measured_on['kernel']}; turns: {options.repeat}; {used}.")
    print(
        "The engine on one core, server and client on another. * = others used over 0.1 cores in every turn.\n"
    )
    print(table({"random 100m, vLLM": found}))
    print()
    print(printed(decided))
    record = {"began": began.isoformat(timespec="seconds"), "machine": measured_on, "results": found}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps({**record, "versions": found_versions, "verdicts": decided}, indent=1) + "\n"
    )
    return 1 if options.check and not all(reached for _, reached, _ in decided) else 0


if __name__ == "__main__":
    sys.exit(main())
