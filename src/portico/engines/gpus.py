"""The GPUs of this machine, from NVIDIA's own library. None where there is none, or no driver.

A GPU that has failed raises errors or makes the driver hang: it is left out, with the driver's reason, and nobody waits
for it for ever. One that has no memory of its own (DGX Spark, Jetson: NVML says "Not Supported") has that of the system.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from portico.engines import hardware
from portico.messages import Value

_ANSWER_SECONDS = 5.0
"""Longer than the driver takes to wake GPUs that nobody uses."""
ANSWER_SECONDS = 2 * _ANSWER_SECONDS
"""For somebody who asks apart, and may have to wait until another has been answered."""
_asking = threading.Lock()
"""One asks the driver at a time: where it hangs, one thread hangs, and not one more each time that somebody looks."""


class Gpu(Value, frozen=True, kw_only=True):
    """Memory in bytes, as the driver counts it."""

    index: int
    name: str
    uuid: str = ""
    total: int
    free: int
    busy: float | None = None
    """Share of the last moment in which it computed."""
    used_by: dict[int, int] = {}
    """Bytes by process number, where the driver tells."""
    shared: bool = False
    """Its memory is the system's, `total` and `free` are of that: what a model takes of the one the other has not."""


class LeftOut(Value, frozen=True, kw_only=True):
    """A GPU that is there and cannot be used, with what the driver says of it."""

    index: int
    reason: str


class Seen(Value, frozen=True, kw_only=True):
    gpus: tuple[Gpu, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


class Driver(Value, frozen=True, kw_only=True):
    version: str
    cuda: str
    """The newest CUDA it can run, such as 13.0."""


def gpus() -> tuple[Gpu, ...]:
    """Those that can be used. Takes a few ms, the first time up to seconds: not in an event loop."""
    return look().gpus


def look() -> Seen:
    """All that there are. Takes as long."""
    with _nvml() as nvml:
        if nvml is None:
            return Seen()
        found, left_out = [], []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                found.append(_gpu(nvml, index))
            except nvml.NVMLError as error:  # the others have not failed
                left_out.append(LeftOut(index=index, reason=str(error)))
        return Seen(gpus=tuple(found), left_out=tuple(left_out))
    return Seen()


def visible(present: Sequence[Gpu], said: str | None) -> tuple[Gpu, ...] | None:
    """Those that CUDA_VISIBLE_DEVICES lets us use, by number or by the beginning of their id; unset: all. None: it says
    something else, such as a part of a GPU."""
    if said is None:
        return tuple(present)
    words = [word.strip() for word in said.split(",") if word.strip()]
    if not all(word.isdigit() or word.startswith("GPU-") for word in words):
        return None
    return tuple(gpu for gpu in present if any(_is_called(gpu, word) for word in words))


def _is_called(gpu: Gpu, word: str) -> bool:
    return word == str(gpu.index) or (word.startswith("GPU-") and gpu.uuid.startswith(word))


def driver() -> Driver | None:
    with _nvml() as nvml:
        if nvml is None:
            return None
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return Driver(
            version=_text(nvml.nvmlSystemGetDriverVersion()), cuda=f"{cuda // 1000}.{cuda % 1000 // 10}"
        )
    return None


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """NVIDIA's library, or None where it cannot be used. An error of it ends the block."""
    import pynvml

    if not _asking.acquire(timeout=_ANSWER_SECONDS):
        yield None
        return
    try:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            yield None
            return
        try:
            with contextlib.suppress(pynvml.NVMLError):
                yield pynvml
        finally:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
    finally:
        _asking.release()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    total, free, shared = _memory(nvml, handle)
    busy, used_by, uuid = None, {}, ""
    with contextlib.suppress(nvml.NVMLError):  # not told of a part of a GPU (MIG), nor in some containers
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    with contextlib.suppress(nvml.NVMLError):
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.usedGpuMemory is not None:
                used_by[process.pid] = process.usedGpuMemory
    with contextlib.suppress(nvml.NVMLError):
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    return Gpu(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=uuid,
        total=total,
        free=free,
        busy=busy,
        used_by=used_by,
        shared=shared,
    )


def _memory(nvml: Any, handle: Any) -> tuple[int, int, bool]:
    """All of it, what is free, and whether it is the system's. vLLM counts the same on such a machine."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        total, free = hardware.memory(), hardware.free_memory()
        if total is None or free is None:
            raise
        return total, free, True
    return memory.total, memory.free, False


def _text(said: str | bytes) -> str:
    return said.decode() if isinstance(said, bytes) else said
