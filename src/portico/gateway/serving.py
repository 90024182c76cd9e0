"""What every route that runs a model shares: the name resolved, a replica leased, the account kept."""

from __future__ import annotations

from types import TracebackType

from portico.engines import Replica
from portico.engines.supervisor import Lease, Supervisor
from portico.gateway.inference import Inference
from portico.gateway.models import Models, Served
from portico.gateway.streaming import Stamps
from portico.web import Request


class Serving:
    """The parts that routes are made of; assembled once."""

    def __init__(self, models: Models, supervisor: Supervisor) -> None:
        self.models, self.supervisor = models, supervisor
        self.inference = Inference()
        self.stamps = Stamps()

    def replica(self, request: Request, served: Served, keep_alive: float | None = None) -> Leased:
        """`async with serving.replica(request, served) as replica:` holds a ready replica meanwhile.
        From here on a caller who leaves cancels the request."""
        return Leased(self.supervisor, request, served, keep_alive)


class Leased:
    __slots__ = ("_keep_alive", "_lease", "_request", "_served", "_supervisor")

    def __init__(
        self, supervisor: Supervisor, request: Request, served: Served, keep_alive: float | None
    ) -> None:
        self._supervisor, self._request, self._served = supervisor, request, served
        self._keep_alive = keep_alive
        self._lease: Lease | None = None

    async def __aenter__(self) -> Replica:
        request = self._request
        request.account.model = self._served.spec.name
        if self._served.refusal is not None:
            raise self._served.refusal.with_traceback(None)
        request.watch()
        self._lease = lease = await self._supervisor.ensure_ready(self._served.spec)
        request.account.load_ns = lease.load_ns
        return lease.replica

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.release(self._keep_alive)
