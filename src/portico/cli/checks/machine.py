"""This machine: the interpreter, the engines, GPUs, memory, cores and disks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from portico.cli import units
from portico.cli.checks import Check, State

if TYPE_CHECKING:
    from portico.engines.available import Available
    from portico.engines.gpus import Driver, Gpu, LeftOut

GROUP, ENGINES = "machine", "engines"
FULL, SHORT = 1_000_000_000, 5_000_000_000
"""Bytes free on a disk: below the first no model comes in, below the second hardly one of use."""
LITTLE_MEMORY = 1 << 30
BUSY = 0.9
"""Share of a GPU that others use or keep, from which a model is slow or does not get in."""


def python(version: tuple[int, int, int], oldest: tuple[int, int], too_new: tuple[int, int]) -> Check:
    """`oldest`, `too_new`: the Pythons that vLLM installs into."""
    found = ".".join(map(str, version))
    if oldest <= version[:2] < too_new:
        return Check(GROUP, "python", "ok", found)
    versions = f"{oldest[0]}.{oldest[1]} to {too_new[0]}.{too_new[1] - 1}"
    do = "portico engines install vllm --python PATH"
    return Check(GROUP, "python", "warn", f"{found}; vLLM installs into {versions}", do)


def engines(found: Sequence[Available]) -> list[Check]:
    """An engine that is not installed is missed only where none is."""
    none = not any(one.installed and one.usable for one in found)
    return [_engine(one, none=none) for one in found]


def _engine(one: Available, *, none: bool) -> Check:
    if one.installed and one.usable:
        return Check(ENGINES, one.name, "ok", f"{one.version}{f' in {one.python}' if one.python else ''}")
    if one.installed:
        return Check(ENGINES, one.name, "warn", f"{one.version} is installed: {one.reason}")
    state: State = "fail" if none and one.name == "llamacpp" else "skip"
    if one.usable or one.name == "llamacpp":
        return Check(ENGINES, one.name, state, "not installed", one.reason)
    return Check(ENGINES, one.name, state, one.reason)


def gpus(
    present: Sequence[Gpu], driver: Driver | None, *, device: bool, left_out: Sequence[LeftOut] = ()
) -> list[Check]:
    """`device`: the kernel knows an NVIDIA card, whatever the driver's library says."""
    failed = [_left_out(one) for one in left_out]
    if not present and failed:
        return failed
    if not present and device:
        found = "there is an NVIDIA card, and its driver does not answer"
        do = "see what `nvidia-smi` says; a container has to be given the card when it is started"
        return [Check(GROUP, "GPU", "warn", found, do)]
    if not present:
        return [Check(GROUP, "GPU", "skip", "no NVIDIA card with a working driver; models run on the CPU")]
    about = f", driver {driver.version}, CUDA {driver.cuda}" if driver else ""
    return [*(_gpu(gpu, about) for gpu in present), *failed]


def _left_out(one: LeftOut) -> Check:
    found = f"it is there and is not used: its driver says {one.reason!r}"
    do = f"see what `nvidia-smi -i {one.index}` says; a card that has failed is back after a restart of the machine"
    return Check(GROUP, f"GPU {one.index}", "warn", found, do)


def _gpu(gpu: Gpu, about: str) -> Check:
    name = f"GPU {gpu.index}"
    found = f"{gpu.name}, {units.memory(gpu.free)} of {units.memory(gpu.total)} free{about}"
    if gpu.shared:
        found += "; it has no memory of its own, this is the system's"
    held = ", ".join(
        f"pid {pid} {units.memory(taken)}"
        for pid, taken in sorted(gpu.used_by.items(), key=lambda each: -each[1])[:3]
    )
    if gpu.free < (1 - BUSY) * gpu.total:
        used = f"; used by {held}" if held else ""
        return Check(
            GROUP,
            name,
            "warn",
            f"{found}{used}",
            "unload what is not needed: `portico ps`, `portico stop MODEL`",
        )
    if gpu.busy is not None and gpu.busy >= BUSY:
        return Check(
            GROUP, name, "warn", f"{found}; busy {gpu.busy:.0%}", "answers are slow while it is: `nvidia-smi`"
        )
    return Check(GROUP, name, "ok", found)


def memory(free: int | None, cores: int, *, vectors: bool) -> list[Check]:
    """`vectors`: the processor has what llama.cpp and vLLM compute fast with (AVX2 on x86-64)."""
    slow = "" if vectors else "; without AVX2, which makes models slow"
    if free is None:
        found = [Check(GROUP, "memory", "skip", "how much is free is not known on this system")]
    elif free < LITTLE_MEMORY:
        do = "unload what is not needed: `portico ps`, `portico stop MODEL`"
        found = [Check(GROUP, "memory", "warn", f"only {units.memory(free)} free", do)]
    else:
        found = [Check(GROUP, "memory", "ok", f"{units.memory(free)} free")]
    count = f"{cores} core{'s' if cores != 1 else ''}"
    return [*found, Check(GROUP, "processor", "ok" if vectors else "warn", f"{count}{slow}")]


def room(name: str, folder: str, free: int, *, writable: bool, setting: str) -> Check:
    """A folder for models. `setting`: the variable that puts it elsewhere."""
    found = f"{units.file_size(free)} free at {folder}"
    move = f"put it on a larger disk: `export {setting}=FOLDER`"
    if not writable:
        return Check(GROUP, name, "fail", f"{folder} may not be written", f"export {setting}=FOLDER")
    if free < FULL:
        return Check(GROUP, name, "fail", found, f"`portico rm MODEL`, or {move}")
    if free < SHORT:
        return Check(GROUP, name, "warn", f"{found}: few models fit", move)
    return Check(GROUP, name, "ok", found)


# ---- looking


def look_at_python() -> list[Check]:
    from portico.engines.available import OLDEST, TOO_NEW

    return [python(sys.version_info[:3], OLDEST, TOO_NEW)]


def look_at_engines(home: Path) -> list[Check]:
    from portico.engines.available import Machine, available

    return engines(available(home, Machine.here()))


def look_at_gpus() -> list[Check]:
    from portico.engines.gpus import driver, look

    device = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()
    seen = look()
    return gpus(seen.gpus, driver(), device=device, left_out=seen.left_out)


def look_at_memory() -> list[Check]:
    from portico.engines import hardware
    from portico.engines.available import Machine

    return memory(hardware.free_memory(), hardware.cores(), vectors=Machine.here().vectors)


def look_at_disk(name: str, folder: Path, setting: str) -> list[Check]:
    from portico.library.disk import free_bytes

    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    return [room(name, str(folder), free_bytes(folder), writable=os.access(there, os.W_OK), setting=setting)]
