"""What the server costs before the embedded engine: tokens/s through it against the engine's own HTTP server.

    python benchmarks/engine_bench.py --connections 1,8,32 --repeat 7

Two engines hold the same model with the same parameters: one is Portico's child, the other one the same child script
started by this driver. Both run on one core, Portico and the client on another, and they take turns. Replies have a
fixed length (max_tokens with ignore_eos), so tokens/s can be compared.

The model has 101 million random weights (make_model.py). The bundled portico-tiny is reported beside it, but no goal
hangs on it: so small a model makes a token in the time of a few system calls.
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
from functools import partial
from pathlib import Path

from driver import add_arguments, machine, prepared, say
from processes import Child, ChildFailed, free_port, processes, tree
from targets import BUILD, HERE, ROOT, Place, Unavailable, get, portico_launch, versions, wait_ready
from turns import Found, Way, ask, printed, table, take_turns, verdicts

TINY = ROOT / "models" / "portico-tiny" / "portico-tiny.gguf"
CHILD_SCRIPT = ROOT / "src" / "portico" / "engines" / "llamacpp_child.py"

# The one place where Portico's command line for this test is known; {words} are filled in when it starts.
COMMAND = (
    "{python} -m portico serve --config {config} --host 127.0.0.1 --port {port} --api-key {key}"
    " --threads {threads} --parallel {parallel} --context {context} --keep-alive=-1 {model}"
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How both engines are set up."""

    model: Path
    threads: int
    parallel: int
    context: int  # of each slot


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure Portico before the embedded engine.")
    parser.add_argument("--connections", default="1,8,32", help="comma-separated")
    parser.add_argument(
        "--models", default="random,tiny", help="random, tiny, or paths of GGUFs; comma-separated"
    )
    parser.add_argument("--repeat", type=int, default=7, help="turns of each; medians are shown")
    parser.add_argument("--tokens", type=int, default=64, help="length of every reply")
    parser.add_argument("--threads", type=int, default=1, help="of each engine")
    parser.add_argument("--parallel", type=int, default=32, help="requests each engine answers at once")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each request")
    parser.add_argument(
        "--tokenizer", type=Path, default=TINY, help="GGUF whose tokenizer the random model gets"
    )
    parser.add_argument("--tools-python", help="Python with gguf and numpy; default: an environment is made")
    parser.add_argument("--output", type=Path, default=BUILD / "engine.json", help="where the JSON goes")
    parser.add_argument(
        "--portico-command", default=COMMAND, help="another way to start the server under test"
    )
    add_arguments(parser)
    return parser.parse_args()


# ---- The models


def random_model(place: Place, arguments: argparse.Namespace) -> Path:
    """Made once, kept in the benchmark's home."""
    path = place.home / "models" / "random-101m-q8_0.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        python = arguments.tools_python or tools_python(place.home)
        say(f"writing {path} ...")
        subprocess.run([python, HERE / "make_model.py", arguments.tokenizer, path], check=True, timeout=600)
    return path


def tools_python(home: Path) -> str:
    folder = home / "tools"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        say(f"installing gguf into {folder} (once) ...")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "gguf==0.19.0"], check=True, timeout=600)
        (folder / "made").touch()
    return str(python)


# ---- The two ways to the engine


@contextlib.contextmanager
def directly(place: Place, setting: Setting) -> Iterator[Way]:
    """Portico's own child script, told what `describe` in llamacpp.py would tell it, but on a port."""
    start = {
        "path": str(setting.model),
        "served_name": "direct",
        "socket": None,
        "key": place.key,
        "cells": setting.context * setting.parallel,
        "parallel": setting.parallel,
        "unified": False,
        "threads": setting.threads,
        "batch_threads": setting.threads,
        "chat_template": None,
        "thinks_unasked": False,
        "mmproj": None,
        "embedding": False,
        "batch": 0,
        "pooling": None,
        "connections": 512,
        "cache_mib": 256,
    }
    with Child(
        [place.portico_python, "-P", CHILD_SCRIPT],
        cores=place.proxy_cores,
        log=place.folder("direct") / "engine.log",
        capture=True,
        instructions=json.dumps(start).encode() + b"\n",
    ) as child:
        announced = child.line()
        if not announced:
            raise ChildFailed(f"the engine did not start: {child.last_words()}")
        port = int(json.loads(announced)["address"].rpartition(":")[2])
        yield Way(name="direct", port=port, key=place.key, model="direct", server=None)


@contextlib.contextmanager
def through_portico(place: Place, setting: Setting) -> Iterator[Way]:
    """Portico beside the client, its engine moved to the engine's core."""
    folder, port = place.folder("portico"), free_port()
    launch = portico_launch(
        place,
        folder,
        port=port,
        model=setting.model,
        threads=setting.threads,
        parallel=setting.parallel,
        context=setting.context,
    )
    with Child(launch.command, cores=place.load_cores, log=folder / "target.log", env=launch.env) as child:
        wait_ready(child, port, place, seconds=launch.patience)
        _, listed = get(port, "/v1/models", {"Authorization": f"Bearer {place.key}"})
        model = json.loads(listed)["data"][0]["id"]
        way = Way(name="portico", port=port, key=place.key, model=model, server=child.pid)
        ask(way, place, connections=1, requests=1, tokens=4)  # loads the model, if the start has not
        move_engine(child.pid, place)
        yield way


def move_engine(server: int, place: Place) -> None:
    """Pin every thread of the server's engine; those it makes later inherit the core."""
    family = tree(server, processes())
    engines = [pid for pid in family if CHILD_SCRIPT.name in Path(f"/proc/{pid}/cmdline").read_text()]
    if len(engines) != 1:
        raise ChildFailed(f"expected one engine below the server, found {len(engines)}")
    for thread in os.listdir(f"/proc/{engines[0]}/task"):
        os.sched_setaffinity(int(thread), place.proxy_cores)


# ---- Measuring


def requests_each(connections: int, *, small: bool) -> int:
    """Enough for a turn of some ten seconds; a small model is some twenty times as fast."""
    return max(1, (256 if small else 16) // connections)


def measure_model(place: Place, setting: Setting, arguments: argparse.Namespace, found: Found) -> None:
    """Fills `found`."""
    small = setting.model.stat().st_size < 32e6
    with directly(place, setting) as direct, through_portico(place, setting) as portico:
        take_turns(direct, portico, place, arguments, found, partial(requests_each, small=small))


# ---- The report


def measure_all(place: Place, arguments: argparse.Namespace) -> tuple[dict[str, Found], dict[str, str]]:
    results: dict[str, Found] = {}
    failures: dict[str, str] = {}
    for name in arguments.models.split(","):
        say(name)
        try:
            model = (
                random_model(place, arguments) if name == "random" else TINY if name == "tiny" else Path(name)
            )
            setting = Setting(
                model=model.absolute(),
                threads=arguments.threads,
                parallel=arguments.parallel,
                context=arguments.context,
            )
            measure_model(place, setting, arguments, results.setdefault(name, {}))
        except (ChildFailed, Unavailable, OSError, subprocess.SubprocessError) as why:
            failures[name] = str(why)
            say(f"  {why}")
    return results, failures


def main() -> int:
    arguments = read_arguments()
    with prepared(arguments, arguments.portico_command) as place:
        began = datetime.now(UTC)
        results, failures = measure_all(place, arguments)
        measured_on, found_versions = machine(place), versions(["portico"], place)

    decided = verdicts(results["random"]) if "random" in results else []
    used = ", ".join(f"{name} {version}" for name, version in found_versions.items())
    print(f"\n{measured_on['cpu']}, Linux {measured_on['kernel']}; turns: {arguments.repeat}; {used}.")
    print(
        "The engine on one core, server and client on another. * = others used over 0.1 cores in every turn.\n"
    )
    print(table(results))
    print()
    print(printed(decided))
    for name, why in failures.items():
        print(f"- {name} not measured: {why}")
    record = {
        "began": began.isoformat(timespec="seconds"),
        "machine": measured_on,
        "versions": found_versions,
        "verdicts": decided,
        "failures": failures,
        "results": results,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if arguments.check and (failures or not all(reached for _, reached, _ in decided)) else 0


if __name__ == "__main__":
    sys.exit(main())
