"""What every route that runs a model shares: a replica chosen and leased, another one if that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from portico.engines import ModelSpec, Replica
from portico.engines.adapted import adapted
from portico.engines.balance import Balance, beginning, weight
from portico.engines.supervisor import Lease, Supervisor
from portico.engines.turns import asking
from portico.errors import (
    Busy,
    EngineDied,
    EngineError,
    EngineStartFailed,
    UpstreamClosed,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
    WaitedTooLong,
)
from portico.gateway.inference import Inference
from portico.gateway.models import Models, Served
from portico.gateway.streaming import Stamps
from portico.web import Account, Request

ATTEMPTS = 3
"""How many replicas of a model one request is given to, at most."""
TWICE = 2
"""How often the same one is: once more when it died and was started again. A server elsewhere that does not answer is
given a request once, and where a kept connection has turned out to be closed, a second time on a new one."""
BUSY = (429, 502, 503)
"""What another replica may do better: it has too much to do, or what stands before it cannot reach it."""

Work = Callable[[Served, Replica], Awaitable[None]]


def _silence(event: str, **facts: object) -> None: ...


class Serving:
    """The parts that routes are made of; assembled once. `say` hears when another model stands in. `heartbeat`: seconds
    until a caller who waits for a stream sees a sign of life, and twice as many between two. What stands in between
    cuts connections that are silent for a minute or less; an error before that still gets a status of its own.
    `request_seconds` is what a request may take from its arrival to its end; 0: no limit."""

    def __init__(
        self,
        models: Models,
        supervisor: Supervisor,
        *,
        heartbeat: float = 5.0,
        request_seconds: float = 0.0,
        say: Callable[..., None] = _silence,
    ) -> None:
        self.models, self.supervisor = models, supervisor
        self.inference = Inference()
        self.stamps = Stamps()
        self.balance = Balance()
        self.heartbeat, self._say = heartbeat, say
        self._request_seconds = request_seconds

    def run(
        self,
        request: Request,
        served: Served,
        work: Work,
        *,
        keep_alive: float | None = None,
        body: bytes = b"",
        limit: int | None = None,
        comments: bytes = b"",
    ) -> Awaitable[None]:
        """Does `work` with a ready replica, which it holds meanwhile. From here on a caller who leaves cancels the
        request. `body` and `limit`, the most tokens of its answer, tell which replica suits it.

        As long as nothing has been answered, a failure that is the replica's and not the request's is tried
        elsewhere: on another replica of the model, on the same one after it was started again, then on the models
        that stand in for it. `comments`: the content type of a stream in which a caller who waits is told so.

        The limits on waiting for a turn and for a first token hold for each attempt. Where one has struck, one other
        replica is tried, for this one may hang though it answers health checks, or have been kept for this prompt
        while another was free; no third, which would rather be overloaded like the first two than save the request;
        then the models that stand in. Never the same one: it would work on what it may still be at. What everything
        may take together is `request_seconds`.
        """
        request.watch()
        if self._request_seconds:
            request.limit(self._request_seconds)
        answered = self._on if not served.fallback else self._answered
        doing = answered(request, served, work, keep_alive, body, limit)
        return self._with_signs(request, comments, doing) if comments else doing

    async def _with_signs(self, request: Request, comments: bytes, doing: Awaitable[None]) -> None:
        signs = SignsOfLife(request, comments, self)
        try:
            await doing
        finally:
            signs.end()

    async def _answered(
        self,
        request: Request,
        served: Served,
        work: Work,
        keep_alive: float | None,
        body: bytes,
        limit: int | None,
    ) -> None:
        one = served
        for substitute in (*served.fallback, None):
            try:
                return await self._on(request, one, work, keep_alive, body, limit)
            except EngineError as error:
                if substitute is None or request.started or not is_replicas_fault(error):
                    raise
                self._say("fallback", model=one.name, to=substitute, error=str(error))
            one = await self.models.resolve(substitute)
            request.account.fallback = one.name

    async def _on(
        self,
        request: Request,
        served: Served,
        work: Work,
        keep_alive: float | None,
        body: bytes,
        limit: int | None,
    ) -> None:
        account = request.account
        account.model = served.spec.name
        if served.refusal is not None:
            raise served.refusal.with_traceback(None)
        shared = bool(served.others)
        tokens, key = (weight(body, limit), beginning(body)) if shared else (0, b"")
        tried: list[str] = []
        while True:
            spec = self._chosen(served.replicas, key, tried) if shared else served.spec
            account.attempts += 1
            failed, lease = False, None
            if shared:
                self.balance.began(spec.name, tokens)
            try:
                lease = await self.supervisor.ensure_ready(spec)
                begin(request, spec, lease)
                replica = lease.replica if not served.adapter else adapted(lease.replica, served.adapter)
                return await work(served, replica)
            except EngineError as error:
                failed = is_replicas_fault(error)
                _believe(lease, error)
                tried.append(spec.name)
                if request.started or not may_try_again(error, tried, replicas=len(served.replicas)):
                    raise
            finally:
                broke = account.error  # in the middle of a stream, which is told there and not raised
                if broke is not None:
                    failed = failed or (isinstance(broke, EngineError) and is_replicas_fault(broke))
                    _believe(lease, broke)
                if shared:
                    self.balance.ended(spec.name, tokens, failed=failed)
                if lease is not None:
                    lease.release(keep_alive)

    def _chosen(self, group: tuple[ModelSpec, ...], key: bytes, tried: list[str]) -> ModelSpec:
        by_name = {spec.name: spec for spec in group}

        def is_ready(name: str) -> bool:
            # There is nothing to load on another server: whether it answers shows when it is asked.
            return by_name[name].engine == "remote" or self.supervisor.is_open(name)

        return by_name[self.balance.choose(tuple(by_name), key, tried=tried, is_ready=is_ready)]


def _believe(lease: Lease | None, error: Exception) -> None:
    """An engine that has told that it is dead is, though its processes may live on for a while."""
    if isinstance(error, EngineDied) and lease is not None and lease.replica.died() is None:
        lease.replica.condemn(str(error))


class SignsOfLife:
    """Comments in a stream whose answer is not there yet. A timer, because nearly every answer comes sooner."""

    def __init__(self, request: Request, content_type: bytes, serving: Serving) -> None:
        self._request, self._content_type = request, content_type
        self._doing, self._seconds = serving.supervisor.doing, serving.heartbeat
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._begin)
        self._task: asyncio.Task[None] | None = None

    def end(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        if not self._request.started:
            self._task = asyncio.get_running_loop().create_task(self._tell(), name="signs of life")

    async def _tell(self) -> None:
        with suppress(OSError):
            while not self._request.started:
                name = self._request.account.model
                await self._request.wait(self._content_type, f"waiting: {self._doing(name)}")
                await asyncio.sleep(2 * self._seconds)


def is_replicas_fault(error: EngineError) -> bool:
    """The same request may have more luck elsewhere."""
    if isinstance(error, UpstreamFailed):
        return error.status in BUSY
    return isinstance(
        error, UpstreamUnreachable | UpstreamClosed | UpstreamTimeout | EngineDied | EngineStartFailed | Busy
    )


def may_try_again(error: EngineError, tried: list[str], *, replicas: int) -> bool:
    """`tried`: the replicas that failed this request, the last one included.

    1. Not after so many. 2. After a wait that was too long only if it was the first attempt. 3. With another replica that
    has not been tried: after any other fault of a replica. 4. Else the same one, once, if it died and is started again.
    """
    if not is_replicas_fault(error) or len(tried) >= ATTEMPTS:  # (1)
        return False
    if isinstance(error, WaitedTooLong | UpstreamTimeout) and len(tried) > 1:  # (2)
        return False
    if len(set(tried)) < replicas:  # (3)
        return True
    return isinstance(error, EngineDied) and tried.count(tried[-1]) < TWICE  # (4)


# ---- what the answer says of it


def begin(request: Request, spec: ModelSpec, lease: Lease) -> None:
    account = request.account
    account.load_ns += lease.load_ns
    account.replica = spec.name
    account.asked = time.perf_counter_ns()
    account.waited_ns = account.load_ns + account.queue_ns
    if lease.replica.turns is not None:
        asking.set(account)
    request.marks = _marks


_MARKS = b"x-portico-replica: %b\r\nx-portico-queue-ms: %.1f\r\nx-portico-attempts: %d\r\nx-portico-overhead-ms: %.2f\r\n"


def _marks(account: Account) -> tuple[bytes, int]:
    """How this answer came about, as lines of its head, and how many. Overhead is what Portico itself added until the first byte."""
    now = time.perf_counter_ns()
    added = account.asked - account.started - account.waited_ns + now - (account.first or now)
    queued = account.load_ns + account.queue_ns
    lines = _MARKS % (account.replica.encode(), queued / 1e6, account.attempts, added / 1e6)
    if not account.fallback:
        return lines, 4
    return lines + b"x-portico-fallback: %b\r\n" % account.fallback.encode(), 5
