"""What models take of this machine: measured at their last run, and what is free now."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import msgspec

from portico.engines import Device, ModelSpec, hardware
from portico.engines.apart import apart
from portico.engines.gpus import gpus, visible

ANSWER_SECONDS = 4.5
"""Less than the supervisor waits: what is free of the host is known all the same where the driver hangs."""
_MOST = 1000
"""Models that are remembered."""


class Measured:
    """Bytes that each model took when it ran last, on disk: of its files alone nobody can tell. Belongs to one
    thread; a disk that fails only makes it forgetful."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._bytes = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            self._bytes = {}

    def get(self, spec: ModelSpec) -> int | None:
        return self._bytes.get(_key(spec))

    def note(self, spec: ModelSpec, taken: int) -> None:
        """Keeps the most of what was measured with these settings."""
        key = _key(spec)
        if taken <= self._bytes.get(key, 0):
            return
        self._bytes.pop(key, None)
        while len(self._bytes) >= _MOST:
            del self._bytes[next(iter(self._bytes))]
        self._bytes[key] = taken
        part = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(self._bytes))
            part.replace(self._path)
        except OSError:
            pass


def _key(spec: ModelSpec) -> str:
    settings = (spec.engine, spec.source, spec.context, spec.parallel, spec.vllm)
    return hashlib.sha256(msgspec.json.encode(settings)).hexdigest()[:32]


async def free(said: str | None = None) -> dict[Device, int]:
    """Bytes that are free now. Several GPUs are counted as one: those that CUDA_VISIBLE_DEVICES, as it is `said`, lets us
    use. What is not known is left out."""
    found: dict[Device, int] = {}
    if (host := hardware.free_memory()) is not None:
        found["host"] = host
    with contextlib.suppress(TimeoutError):
        if ours := visible(await apart(gpus, within=ANSWER_SECONDS), said):
            found["gpu"] = sum(gpu.free for gpu in ours)
    return found
