"""How both drivers, bench.py and engine_bench.py, begin and end."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from targets import HERE, PORTICO_COMMAND, ROOT, Place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    own = ROOT / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    parser.add_argument("--proxy-core", type=int, default=1, help="core of what is measured")
    parser.add_argument("--load-core", type=int, default=0, help="core of the client and of this driver")
    parser.add_argument(
        "--wait-quiet", type=float, default=5, help="seconds to wait for other load to end, each time"
    )
    parser.add_argument("--portico-python", default=python, help="Python with Portico's dependencies")
    parser.add_argument("--check", action="store_true", help="exit with 1 unless every goal is reached")


@contextlib.contextmanager
def prepared(arguments: argparse.Namespace, command: str = PORTICO_COMMAND) -> Iterator[Place]:
    """Everything built, this process pinned, signals turned into an orderly end, and a folder that goes away."""
    wanted = {arguments.proxy_core, arguments.load_core}
    if sys.platform != "linux" or len(wanted) < 2 or not wanted <= os.sched_getaffinity(0):
        raise SystemExit(
            "The benchmarks need Linux and two cores of their own: --proxy-core and --load-core."
        )
    subprocess.run(["make", "-s", "-C", str(HERE)], check=True)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _end)
    os.sched_setaffinity(0, {arguments.load_core})
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as scratch:
        Path(scratch).chmod(0o755)  # nginx's worker may be another user
        yield Place(
            scratch=Path(scratch),
            proxy_cores=frozenset({arguments.proxy_core}),
            load_cores=frozenset({arguments.load_core}),
            home=Path(os.environ.get("PORTICO_BENCH_HOME") or Path.home() / ".cache" / "portico-bench"),
            portico_command=command,
            portico_python=arguments.portico_python,
        )


def _end(number: int, _frame: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a second one must not interrupt the ending
    raise SystemExit(128 + number)  # every `with` on the way out ends its children


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine(place: Place) -> dict[str, str | int]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": (names or [platform.machine()])[0],
        "cores": os.cpu_count() or 0,
        "kernel": platform.release().partition("-")[0],
        "proxy_core": min(place.proxy_cores),
        "load_core": min(place.load_cores),
    }
