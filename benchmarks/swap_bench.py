"""What a swap costs on top of the engine's own start: a model gives way, another one is loaded and answers.

    python benchmarks/swap_bench.py --swaps 20

The engines are the tests' stand-in for vLLM, real processes that take half a second to load. In turns: the stand-in
started by hand until it answers, and a request that makes Portico unload one model and load the other.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import time
from pathlib import Path

from driver import add_arguments, machine, prepared, say
from processes import Child, ChildFailed, free_port
from targets import BUILD, ROOT, Place, get, wait_ready

TESTS = ROOT / "tests"
LOADING = 0.5
REST = 1.6
"""Seconds between two swaps: what was just loaded stays for as long as its loading took."""
INSTALL = {"name": "vllm", "version": "0.32.0", "module": "fake_vllm", "device": "gpu"}


def alone(place: Place) -> float:
    """Seconds from starting the stand-in to its first answer."""
    port = free_port()
    command = [place.portico_python, "-m", "fake_vllm", "--model", "m", "--served-model-name", "m"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--slow-start", str(LOADING)]
    log = place.folder("alone") / "engine.log"
    began = time.monotonic()
    with Child(command, cores=place.cores, log=log, env={"PYTHONPATH": str(TESTS)}) as child:
        while not answers(port):
            if not child.running() or time.monotonic() - began > 30:
                raise ChildFailed(f"the stand-in did not start: {child.last_words()}")
            time.sleep(0.005)
        ask(port, "m", {})
        return time.monotonic() - began


def answers(port: int) -> bool:
    try:
        return get(port, "/health")[0] == 200
    except OSError:
        return False


def ask(port: int, model: str, headers: dict[str, str]) -> None:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(
            "POST", "/v1/chat/completions", body, {"content-type": "application/json", **headers}
        )
        reply = connection.getresponse()
        said = reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise ChildFailed(f"{model} answered {reply.status}: {said[:300]!r}")


def swaps(place: Place, count: int) -> tuple[list[float], list[float]]:
    """Seconds of `count` starts by hand and of as many swaps, in turns."""
    folder, port = place.folder("portico"), free_port()
    home = folder / "home" / "engines" / "vllm"
    home.mkdir(parents=True)
    (home / "portico.json").write_text(json.dumps({**INSTALL, "python": place.portico_python}))
    args = json.dumps(["--slow-start", str(LOADING)])
    tables = [f'[[model]]\nname = "org/{name}"\nengine = "vllm"\nvllm_args = {args}' for name in "ab"]
    config = folder / "portico.toml"
    config.write_text("\n".join(["max_loaded_models = 1", *tables]))
    environ = {
        **os.environ,
        "PORTICO_HOME": str(folder / "home"),
        "PYTHONPATH": f"{TESTS}:{ROOT / 'src'}",
        "HF_HUB_OFFLINE": "1",
    }
    command = [place.portico_python, "-m", "portico", "serve", "--config", str(config), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--api-key", place.key]
    headers = {"authorization": f"Bearer {place.key}"}
    by_hand, swapped = [], []
    with Child(command, cores=place.cores, log=folder / "target.log", env=environ) as child:
        wait_ready(child, port, place, seconds=60)
        for model in ("org/a", "org/b", "org/a"):  # both were loaded at the start, one after the other
            ask(port, model, headers)
            time.sleep(REST)
        for at in range(count):
            time.sleep(REST)
            by_hand.append(alone(place))
            began = time.monotonic()
            ask(port, f"org/{'ba'[at % 2]}", headers)
            swapped.append(time.monotonic() - began)
    return by_hand, swapped


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a swap of two models.")
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--output", type=Path, default=BUILD / "swap.json", help="where the JSON goes")
    add_arguments(parser)
    options = parser.parse_args()
    with prepared(options) as place:
        by_hand, swapped = swaps(place, options.swaps)
        measured_on = machine(place)
    start, swap = statistics.median(by_hand), statistics.median(swapped)
    say(f"{measured_on['cpu']}, Linux {measured_on['kernel']}; {options.swaps} swaps.")
    print(f"start by hand: median {start:.3f} s, {min(by_hand):.3f} to {max(by_hand):.3f}")
    print(f"swap:          median {swap:.3f} s, {min(swapped):.3f} to {max(swapped):.3f}")
    print(f"on top: {swap - start:.3f} s (goal: at most 0.2)")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps({"machine": measured_on, "start": by_hand, "swap": swapped}, indent=1) + "\n"
    )
    return 1 if options.check and swap - start > 0.2 else 0


if __name__ == "__main__":
    sys.exit(main())
