"""What stands beside the two dialects: health, metrics, version, the OpenAPI description."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from portico import __version__
from portico.engines.apart import apart
from portico.engines.gpus import gpus
from portico.engines.supervisor import ReplicaStatus, Supervisor
from portico.gateway.engine_metrics import collected, of_gpus
from portico.gateway.meters import Meters, exposition
from portico.gateway.models import Models
from portico.web import Access, Request, Route

GPU_SECONDS = 2.0
"""What the driver gets to tell of the GPUs."""
_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"


class EngineHealth(msgspec.Struct):
    model: str
    state: str
    in_flight: int
    waiting: int
    pid: int | None = None
    error: str | None = None


class Memory(msgspec.Struct):
    total_mb: int
    used_mb: int
    available_mb: int


class Gpu(msgspec.Struct):
    name: str


class Health(msgspec.Struct):
    name: str
    status: str
    version: str
    engines: list[EngineHealth]
    models: list[str]
    gpu: Gpu | None
    memory: Memory | None
    uptime_seconds: float
    requests_in_flight: int
    open_connections: int


class Version(msgspec.Struct):
    name: str
    version: str


class BesideRoutes:
    """Answers from memory: none of these waits for an engine, but /metrics for a moment."""

    def __init__(
        self,
        models: Models,
        supervisor: Supervisor,
        meters: Meters,
        connections: Callable[[], int],
        access: Access,
    ) -> None:
        self._models, self._supervisor, self._meters = models, supervisor, meters
        self._connections, self._access = connections, access
        self._promised = frozenset(spec.name for spec in models.configured)
        self.description = b""
        """The OpenAPI description; made from all routes, these among them."""
        self._started = time.monotonic()
        self._gpu = first_gpu()
        self.stopping = False

    def rows(self) -> list[Route]:
        return [
            Route("GET", "/health", self.health, "plain", "Is it well?", gives=Health, open=True),
            Route("GET", "/metrics", self.metrics, "plain", "Prometheus", gives=str),
            Route("GET", "/version", self.version, "plain", "Portico's version", gives=Version),
            Route("GET", "/openapi.json", self.openapi, "plain", "This description", gives=dict),
        ]

    async def health(self, request: Request) -> None:
        """200; 503 when the server is stopping, or a model it was started with has failed and several starts have
        not brought it back. Any other that failed is only told of: it must not take the server from those it serves. The text
        OK for text/plain."""
        states = self._supervisor.states()
        engines = [
            EngineHealth(
                model=status.name,
                state=status.state,
                in_flight=status.in_flight,
                waiting=status.waiting,
                pid=status.pid,
                error=status.error,
            )
            for status in states
        ]
        failed = self._broken(states)
        word = "stopping" if self.stopping else "failed" if failed else "ok"
        status = 200 if word == "ok" else 503
        if b"text/plain" in (request.header(b"accept") or b""):
            return await request.answer(status, word.upper().encode(), b"text/plain")
        if not self._access.knows(request):  # whoever has no key learns whether it is well, and nothing else
            return await request.answer(status, msgspec.json.encode({"status": word}))
        health = Health(
            name="portico",
            status=word,
            version=__version__,
            engines=engines,
            models=self._models.names(),
            gpu=self._gpu,
            memory=memory(),
            uptime_seconds=round(time.monotonic() - self._started, 3),
            requests_in_flight=self._meters.in_flight - 1,  # not counting this one
            open_connections=self._connections(),
        )
        await request.answer(status, msgspec.json.encode(health))

    def _broken(self, states: Sequence[ReplicaStatus]) -> bool:
        """A model it was started with has no replica left that comes back."""
        lost: dict[str, bool] = {}
        for status in states:
            lost[status.model] = lost.get(status.model, True) and status.lost
        return any(lost.get(name, False) for name in self._promised)

    async def metrics(self, request: Request) -> None:
        states = self._supervisor.states()
        queued = [(status.name, status.waiting) for status in states]
        up = [(status.name, status.state, status.in_flight) for status in states]
        body = exposition(lambda: self._meters.metrics(queued, up))
        engines = [one for one in self._supervisor.replicas() if one.spec.engine == "vllm"]
        if engines:
            body += await collected(engines)
        if self._gpu is not None:
            with contextlib.suppress(TimeoutError):  # of a driver that hangs nothing is told
                body += of_gpus(await apart(gpus, within=GPU_SECONDS))
        await request.answer(200, body, _PROMETHEUS)

    async def version(self, request: Request) -> None:
        await request.answer(200, msgspec.json.encode(Version(name="portico", version=__version__)))

    async def openapi(self, request: Request) -> None:
        await request.answer(200, self.description)


def memory() -> Memory | None:
    """The machine's memory in MB (2**20 bytes), where Linux tells it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    total, available = kilobytes["MemTotal"] // 1024, kilobytes["MemAvailable"] // 1024
    return Memory(total_mb=total, used_mb=total - available, available_mb=available)


def first_gpu() -> Gpu | None:
    """The first NVIDIA card as its kernel driver names it, or None."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                return Gpu(name=value.strip())
    return None
