"""The log of a training: what ran where, and the loss. It is shipped beside the weights, so no paths stand in it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

UNTOLD = {"out", "tokenizer", "init"}
"""Arguments that are places on somebody's machine."""


def opened(path: Path, first: int) -> TextIO:
    """The log, to be gone on with at step `first`: lines that a broken run wrote after its last checkpoint go."""
    kept = []
    if first and path.exists():
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _stays(line, first)]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    return path.open("a", encoding="utf-8")


def _stays(text: str, first: int) -> bool:
    try:
        line = json.loads(text)
    except ValueError:
        return False  # the end of a run that was cut off
    return bool(line["step"] < first or (line["step"] == first and "loss" in line))


def heading(arguments: Mapping[str, Any], **told: Any) -> dict[str, Any]:
    """The line that a run begins with."""
    kept = {name: value for name, value in arguments.items() if name not in UNTOLD}
    return {**told, "cores": cores(), "processor": processor(), **kept}


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
