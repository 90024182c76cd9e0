"""What models take of this machine: measured at their last run, and what is free now."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import msgspec

from portico.engines import HOST, Account, ModelSpec, hardware
from portico.engines.apart import apart
from portico.engines.gpus import gpus, visible

ANSWER_SECONDS = 4.5
"""Less than the supervisor waits: what is free of the host is known all the same where the driver hangs."""
_MOST = 1000
"""Models that are remembered."""


class Measured:
    """Bytes that each model took when it ran last, of the host or of each of its GPUs, on disk: of its files alone
    nobody can tell. Belongs to one thread; a disk that fails only makes it forgetful."""

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


async def free(said: str | None = None) -> dict[Account, int]:
    """Bytes that are free now, of the host and of each GPU that CUDA_VISIBLE_DEVICES, as it is `said`, lets us use. What
    is not known is left out, and a GPU whose memory is the host's has no account of its own."""
    found: dict[Account, int] = {}
    if (host := hardware.free_memory()) is not None:
        found[HOST] = host
    with contextlib.suppress(TimeoutError):
        for gpu in visible(await apart(gpus, within=ANSWER_SECONDS), said) or ():
            if not gpu.shared:
                found[str(gpu.index)] = gpu.free
    return found
