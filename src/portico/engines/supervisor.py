"""The one owner of replicas: it promises a ready one, and nobody else starts or stops an engine.

`ensure_ready(spec)` is the seam. Callers never look at a state first: they ask, and wait, join a load under
way, or get an error. What is done next is decided in schedule.py and carried out here; everything runs in one
event loop, so that what was decided still holds when it is done.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property
from itertools import count
from operator import attrgetter
from typing import Any

from portico.engines import Engine, ModelSpec, Replica, State
from portico.engines.schedule import Plan, Standing, decide
from portico.errors import Busy, EngineStartFailed, PorticoError, ShuttingDown
from portico.messages import Value

STABLE_SECONDS = 60.0
"""A replica that lived so long has not failed: its death starts the count of failures anew."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class ReplicaStatus(Value, frozen=True, kw_only=True):
    """What /health, /metrics and /api/ps tell of one model."""

    name: str
    state: State
    engine: str
    in_flight: int = 0
    waiting: int = 0
    loaded_at: float | None = None
    """Seconds since the epoch; None: it is not loaded."""
    expires_at: float | None = None
    """Seconds since the epoch, as if its last request ended now; None: never, or it is not loaded."""
    context: int | None = None
    size: int | None = None
    """Bytes of its weights."""
    pid: int | None = None
    error: str | None = None
    """Why it failed last."""


def pause_after(failures: int) -> float:
    """Seconds before the next start: the first restart is immediate, then 0.5 s, doubling to 30 s."""
    return 0.0 if failures < 2 else min(FIRST_PAUSE * 2.0 ** min(failures - 2, 16), LONGEST_PAUSE)


class Lease:
    """A replica that is not stopped before `release`. `load_ns`: nanoseconds spent waiting for it."""

    __slots__ = ("_run", "load_ns", "replica")

    def __init__(self, run: _Run, load_ns: int) -> None:
        self.replica = run.replica
        self.load_ns = load_ns
        self._run: _Run | None = run

    def release(self, keep_alive: float | None = None) -> None:
        """Gives it back; again does nothing. `keep_alive` (seconds; 0 unloads it as soon as it is idle, negative
        never) holds from now on until the model is unloaded or another caller says otherwise."""
        run, self._run = self._run, None
        if run is not None:
            run.in_flight -= 1
            run.model.supervisor.given_back(run, keep_alive)


class _Run:
    """One life of a model: from the moment its replica was ready."""

    __slots__ = ("in_flight", "loaded_at", "model", "ready_at", "replica", "spec")

    def __init__(self, model: _Model, spec: ModelSpec, replica: Replica, now: float) -> None:
        self.model, self.spec, self.replica = model, spec, replica
        self.in_flight = 0
        self.ready_at, self.loaded_at = now, model.supervisor.clock()


class _Waiter:
    """A caller of ensure_ready."""

    __slots__ = ("began", "future", "order", "spec")

    def __init__(self, order: int, spec: ModelSpec, future: asyncio.Future[Lease]) -> None:
        self.order, self.spec, self.future = order, spec, future
        self.began = time.monotonic_ns()


class _Model:
    """All that is known of one model, through all its lives. Only the supervisor changes it."""

    def __init__(self, supervisor: Supervisor, spec: ModelSpec, engine: Engine) -> None:
        self.supervisor, self.engine = supervisor, engine
        self.spec = spec
        self.state: State = "stopped"
        self.open: _Run | None = None
        """The run, while whoever asks may have it at once: ready, not held, nobody before him in the queue."""
        self.run: _Run | None = None
        self.waiting: list[_Waiter] = []
        self.unload_order: int | None = None
        self.unloaded: list[asyncio.Future[None]] = []
        self.keep_alive = spec.keep_alive
        self.expires_at = math.inf
        self.failures = 0
        self.retry_at = 0.0
        self.error: PorticoError | None = None
        self.last_words: str | None = None
        self.load: asyncio.Task[None] | None = None

    def standing(self) -> Standing:
        """As values, for the decision."""
        run = self.run
        oldest = self.waiting[0].order if self.waiting else None
        return Standing(
            name=self.spec.name,
            state=self.state,
            in_flight=run.in_flight if run else 0,
            waiting=oldest,
            leaving=self.leaving(),
            expires_at=self.expires_at,
            retry_at=self.retry_at,
            occupies=self.engine.occupies,
        )

    def leaving(self) -> int | None:
        """Order of the first wish to end this run: to unload it, or to run it with other settings."""
        run = self.run
        orders = [] if self.unload_order is None else [self.unload_order]
        if run is not None:
            orders += [waiter.order for waiter in self.waiting if not run_alike(waiter.spec, run.spec)]
        return min(orders, default=None)

    def failed(self, error: PorticoError | None, last_words: str | None, lived: float, now: float) -> None:
        """Counts a failure; the next start waits the longer the more there were."""
        self.failures = 1 if lived >= STABLE_SECONDS else self.failures + 1
        self.retry_at = now + pause_after(self.failures)
        self.error, self.last_words = error, last_words
        self.state = "failed"


def run_alike(one: ModelSpec, other: ModelSpec) -> bool:
    """The same running engine serves both."""
    return one is other or bool(_what_runs(one) == _what_runs(other))


_what_runs = attrgetter(
    "engine", "source", "served_name", "api_key", "context", "parallel", "threads", "chat_template", "mmproj"
)


class Supervisor:
    """Owns every replica. Belongs to one event loop; all methods are called there.

    `max_queue` callers may wait for models, further ones get Busy. `max_loaded` models take memory at once; 0: no
    limit. `load_timeout`: seconds a start may take. `clock` gives seconds since the epoch.

    A load goes on when everybody who waited for it has left: what it costs has been paid for the most part, and
    who leaves often comes back. It then expires like any other idle model, and gives way to a model that is
    waited for.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        *,
        max_queue: int = 512,
        max_loaded: int = 0,
        load_timeout: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._engines, self._max_queue, self._max_loaded = dict(engines), max(max_queue, 1), max_loaded
        self._load_timeout = load_timeout
        self._models: dict[str, _Model] = {}
        self._orders = count(1)
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._stopping = False

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the first call: a supervisor is assembled before there is one."""
        return asyncio.get_running_loop()

    # ---- what callers ask

    async def ensure_ready(self, spec: ModelSpec) -> Lease:
        """A replica that answers, loaded first if it has to be. Raises EngineStartFailed, UpstreamUnreachable,
        Busy (too many wait already), ShuttingDown."""
        model = self._models.get(spec.name)
        if model is not None:
            run = model.open
            if run is not None and run.spec is spec and run.replica.died() is None:
                run.in_flight += 1
                return Lease(run, 0)
        return await self._wait_for(spec)

    async def load(self, spec: ModelSpec, keep_alive: float | None = None) -> None:
        """Loads the model and leaves it loaded for `keep_alive` seconds."""
        (await self.ensure_ready(spec)).release(keep_alive)

    async def unload(self, name: str) -> None:
        """Stops the model when its running requests have ended; returns when it is gone. Who asks for it
        meanwhile waits and gets it anew. Does nothing for a model that is not loaded."""
        model = self._models.get(name)
        if model is None or model.state in ("stopped", "failed") or self._stopping:
            return
        if model.unload_order is None:
            model.unload_order = next(self._orders)
        gone: asyncio.Future[None] = self._loop.create_future()
        model.unloaded.append(gone)
        self._advance()
        await gone

    def states(self) -> tuple[ReplicaStatus, ...]:
        """Every model that was asked for so far, from memory."""
        for model in self._models.values():
            self._notice_death(model)
        return tuple(self._status(model) for model in self._models.values())

    async def stop(self) -> None:
        """Ends every engine, busy or not, and every wait (ShuttingDown). Nothing is started afterwards."""
        self._stopping = True
        self._set_alarm(math.inf)
        models = list(self._models.values())
        for model in models:
            self._refuse(model, ShuttingDown())
            model.open = None
            if model.load is not None:
                model.load.cancel()
        # One engine that cannot be ended must not keep the others alive: their errors are looked at last.
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ended = [self._end(model) for model in models if model.run is not None]
        outcomes = await asyncio.gather(*ended, return_exceptions=True)
        for model in models:
            model.state = "stopped"
            self._gone(model)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    # ---- waiting

    async def _wait_for(self, spec: ModelSpec) -> Lease:
        model = self._known(spec)
        self._notice_death(model)
        if model.error is not None and model.state == "failed" and model.retry_at > self._now():
            raise model.error.with_traceback(None)  # it would grow by every caller it is raised to
        waits = model.open is None or model.open.spec is not spec
        if waits and self._waiting >= self._max_queue:
            raise Busy()
        waiter = _Waiter(next(self._orders), spec, self._loop.create_future())
        model.waiting.append(waiter)
        model.open = None  # nobody overtakes
        self._waiting += 1
        try:
            self._advance()
            return await waiter.future
        except asyncio.CancelledError:
            self._dropped(model, waiter)
            raise

    def _known(self, spec: ModelSpec) -> _Model:
        if self._stopping:
            raise ShuttingDown()
        if spec.engine not in self._engines:
            known = ", ".join(self._engines)
            raise EngineStartFailed(
                model=spec.name, reason=f"there is no engine {spec.engine!r}, only {known}."
            )
        model = self._models.get(spec.name)
        if model is None:
            self._models[spec.name] = model = _Model(self, spec, self._engines[spec.engine])
        run = model.run
        if run is not None and run.spec is not spec and run_alike(spec, run.spec):
            model.spec = run.spec = run.replica.spec = spec  # the next caller with it is served at once
        return model

    def _dropped(self, model: _Model, waiter: _Waiter) -> None:
        """A caller was cancelled: before it was his turn, or between that and his waking up."""
        if waiter in model.waiting:
            model.waiting.remove(waiter)
            self._waiting -= 1
            self._advance()
        elif not waiter.future.cancelled() and waiter.future.exception() is None:
            waiter.future.result().release()

    def given_back(self, run: _Run, keep_alive: float | None) -> None:
        """A lease was released (called by the lease)."""
        model = run.model
        if model.run is not run:
            return  # of an engine that died meanwhile
        if keep_alive is not None:
            model.keep_alive = keep_alive
        if run.in_flight == 0:
            self._set_expiry(model)
            if self._waiting or model.unload_order is not None or model.keep_alive == 0:
                self._advance()
            elif model.expires_at < self._alarm_at:
                self._set_alarm(model.expires_at)

    def _set_expiry(self, model: _Model) -> None:
        model.expires_at = self._now() + model.keep_alive if model.keep_alive >= 0 else math.inf

    # ---- deciding and doing

    def _advance(self) -> None:
        """Decides and does what follows from it. Called after every change; never waits."""
        if self._stopping:
            return
        plan = decide(
            [model.standing() for model in self._models.values()],
            max_loaded=self._max_loaded,
            now=self._now(),
        )
        for name in plan.serve:
            self._serve(self._models[name])
        for name in plan.start:
            model = self._models[name]
            model.state = "starting"
            model.load = self._spawn(self._load(model, model.waiting[0].spec), f"load {name}")
        for name in plan.stop:
            model = self._models[name]
            model.state = "stopping"
            self._spawn(self._end(model), f"stop {name}")
        self._open(plan)
        self._set_alarm(plan.wake_at)

    def _open(self, plan: Plan) -> None:
        for name, model in self._models.items():
            free = model.state == "ready" and name not in plan.hold and not model.waiting
            model.open = model.run if free else None

    def _serve(self, model: _Model) -> None:
        run, leaving = model.run, model.leaving()
        assert run is not None
        for waiter in list(model.waiting):
            if leaving is not None and waiter.order >= leaving:
                continue
            model.waiting.remove(waiter)
            self._waiting -= 1
            if not waiter.future.done():  # a cancelled one is about to find out
                run.in_flight += 1
                waiter.future.set_result(Lease(run, time.monotonic_ns() - waiter.began))

    def _refuse(self, model: _Model, error: Exception) -> None:
        waiting, model.waiting = model.waiting, []
        self._waiting -= len(waiting)
        for waiter in waiting:
            if not waiter.future.done():
                waiter.future.set_exception(error)

    async def _load(self, model: _Model, spec: ModelSpec) -> None:
        model.engine = self._engines[spec.engine]
        try:
            async with asyncio.timeout(self._load_timeout):
                replica = await model.engine.start(spec)
        except TimeoutError:
            reason = f"it was not ready within {self._load_timeout:g} s (--load-timeout)."
            self._load_failed(model, EngineStartFailed(model=spec.name, reason=reason))
        except Exception as error:  # a defect of an engine must not leave callers waiting for ever
            self._load_failed(model, error)
        else:
            model.run = _Run(model, spec, replica, self._now())
            model.spec, model.state = spec, "ready"
            model.keep_alive, model.error, model.last_words = spec.keep_alive, None, None
            self._set_expiry(model)
        model.load = None
        self._advance()

    def _load_failed(self, model: _Model, error: Exception) -> None:
        if isinstance(error, EngineStartFailed):
            model.failed(error, None, 0.0, self._now())
        else:
            # Nothing answers there, or a defect: no reason to turn the next caller away unasked.
            model.state, model.error = "failed", None
            model.last_words = str(error)
        self._gone(model)
        self._refuse(model, error)

    async def _end(self, model: _Model) -> None:
        run, model.state, model.open = model.run, "stopping", None
        assert run is not None
        try:
            await model.engine.stop(run.replica)
        finally:
            if model.run is run:
                model.run, model.state, model.failures = None, "stopped", 0
            self._gone(model)
            self._advance()

    def _notice_death(self, model: _Model) -> None:
        """A replica that died is counted and cleared away; who waits gets another when `retry_at` comes."""
        run = model.run
        if run is None or model.state != "ready":
            return
        last_words = run.replica.died()
        if last_words is None:
            return
        model.run = model.open = None
        model.failed(None, last_words, self._now() - run.ready_at, self._now())
        self._gone(model)
        if not self._stopping:
            self._spawn(model.engine.stop(run.replica), f"clear {model.spec.name}")

    def _gone(self, model: _Model) -> None:
        model.unload_order = None
        unloaded, model.unloaded = model.unloaded, []
        for future in unloaded:
            if not future.done():
                future.set_result(None)

    # ---- inside

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _now(self) -> float:
        return self._loop.time()

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = None, at
        if at < math.inf:
            self._alarm = self._loop.call_at(at, self._rung)

    def _rung(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        for model in self._models.values():
            self._notice_death(model)
        self._advance()

    def _status(self, model: _Model) -> ReplicaStatus:
        run = model.run
        expires_at = None
        if run is not None and model.keep_alive >= 0:
            left = model.keep_alive if run.in_flight else model.expires_at - self._now()
            expires_at = self.clock() + left
        return ReplicaStatus(
            name=model.spec.name,
            state=model.state,
            engine=model.spec.engine,
            in_flight=run.in_flight if run else 0,
            waiting=len(model.waiting),
            loaded_at=run.loaded_at if run else None,
            expires_at=expires_at,
            context=run.replica.context if run else None,
            size=model.spec.facts.size,
            pid=run.replica.pid if run else None,
            error=str(model.error) if model.error else model.last_words,
        )
