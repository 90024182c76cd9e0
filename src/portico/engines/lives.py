"""The supervisor's records of a model: who waits for it, its present life, and the leases on that.

Only the supervisor changes them. A model has many lives (`Run`), one after the other; a lease belongs to one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Protocol

from portico.engines import Account, Claim, Engine, ModelSpec, Progress, Replica, State
from portico.engines.schedule import LOST_AFTER, Standing, is_lost
from portico.errors import EngineStartFailed, PorticoError
from portico.messages import Value

STABLE_SECONDS = 60.0
"""A replica that lived so long has not failed: its death starts the count of failures anew."""
MOST_STAY = 10.0
"""A model that was just loaded stays for as long as its loading took, and at most so many seconds."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class ReplicaStatus(Value, frozen=True, kw_only=True):
    """What /health, /metrics and /api/ps tell of one model."""

    name: str
    model: str
    """The name it is listed under; further replicas of a model share it."""
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
    progress: Progress | None = None
    """Of a start that is under way, where its engine tells."""
    error: str | None = None
    """Why it failed last."""
    lost: bool = False
    """It has failed, and does not come back by itself, or several starts have not brought it back."""


class Owner(Protocol):
    """Who is told that a lease came back."""

    clock: Callable[[], float]

    def given_back(self, run: Run, keep_alive: float | None) -> None: ...


class Lease:
    """A replica that is not stopped before `release`. `load_ns`: nanoseconds spent waiting for it."""

    __slots__ = ("_run", "load_ns", "replica")

    def __init__(self, run: Run, load_ns: int) -> None:
        self.replica = run.replica
        self.load_ns = load_ns
        self._run: Run | None = run

    def release(self, keep_alive: float | None = None) -> None:
        """Gives it back; again does nothing. `keep_alive` (seconds; 0 unloads it as soon as it is idle, negative
        never) holds from now on until the model is unloaded or another caller says otherwise."""
        run, self._run = self._run, None
        if run is not None:
            run.in_flight -= 1
            run.model.owner.given_back(run, keep_alive)


class Run:
    """One life of a model: from the moment its replica was ready."""

    __slots__ = ("in_flight", "loaded_at", "model", "ready_at", "replica", "spec")

    def __init__(self, model: Model, spec: ModelSpec, replica: Replica, now: float) -> None:
        self.model, self.spec, self.replica = model, spec, replica
        self.in_flight = 0
        self.ready_at, self.loaded_at = now, model.owner.clock()


class Waiter:
    """A caller of ensure_ready."""

    __slots__ = ("began", "future", "order", "spec")

    def __init__(self, order: int, spec: ModelSpec, future: asyncio.Future[Lease]) -> None:
        self.order, self.spec, self.future = order, spec, future
        self.began = time.monotonic_ns()


class Model:
    """All that is known of one model, through all its lives."""

    def __init__(self, owner: Owner, spec: ModelSpec, engine: Engine) -> None:
        self.owner, self.engine, self.spec = owner, engine, spec
        self.state: State = "stopped"
        self.run: Run | None = None
        self.open: Run | None = None
        """The run, while whoever asks may have it at once: ready, not held, nobody before him in the queue."""
        self.waiting: list[Waiter] = []
        self.unload_order: int | None = None
        self.unloaded: list[asyncio.Future[None]] = []
        self.keep_alive = spec.keep_alive
        self.expires_at = math.inf
        self.began = 0.0
        """When its latest start began."""
        self.failures = 0
        self.retry_at = 0.0
        self.revive_at = math.inf
        self.has_run = False
        self.error: PorticoError | None = None
        """Raised to callers until `retry_at`: why it could not start."""
        self.last_words: str | None = None
        self.under_way: asyncio.Task[None] | None = None
        """Its loading, waking up or going to sleep, which may be cancelled; ending it may not."""
        self.progress: Progress | None = None
        """Of the start that is under way."""
        self.claim: Claim = engine.claim(spec)
        self.gpus: frozenset[Account] = frozenset()
        """Those of its present start or run, where they are known."""
        self.without: frozenset[str] = frozenset()
        """Its last start ran out of memory beside these: for those who wait it is started once more without them, however
        that ends."""
        self.failed_apart: ModelSpec | None = None
        """With these settings it ran out of memory though nobody shared it: others need not make room for that again."""
        self.stays_until = 0.0
        self.cut_at = math.inf
        self.level = 0
        """How deep it sleeps."""
        self.nap_at = math.inf
        self.naps: Sequence[float] = ()
        """Seconds of idleness until it sleeps, and then until it sleeps deeper."""

    @property
    def original(self) -> str:
        """The name that all replicas of it share."""
        return self.spec.copy_of or self.spec.name

    def standing(self) -> Standing:
        """As values, for the decision."""
        return Standing(
            name=self.spec.name,
            copy_of=self.spec.copy_of,
            state=self.state,
            in_flight=self.run.in_flight if self.run else 0,
            waiting=self.waiting[0].order if self.waiting else None,
            leaving=self.leaving(),
            expires_at=self.expires_at,
            retry_at=self.retry_at,
            revive_at=self.revive_at,
            failures=self.failures,
            occupies=self.engine.occupies,
            device=self.claim.device,
            needs=self.claim.memory,
            by_gpu=self.claim.by_gpu,
            count=self.claim.count,
            gpus=self.gpus if self.state not in ("stopped", "failed") else frozenset(),
            without=self.without if self.waiting else frozenset(),
            stays_until=self.stays_until,
            cut_at=self.cut_at,
            level=self.level,
            deepest=self.claim.deepest,
            nap_at=self.nap_at,
        )

    def gave_up(self) -> bool:
        """Whether a start that failed is told to those who wait. One that ran before is worth waiting for: its engine
        was killed while it came back, or its memory was not free yet. So is one that others make room for."""
        return not self.without and (not self.has_run or self.failures >= LOST_AFTER)

    def would_take_memory(self, now: float) -> bool:
        """It is started, or woken, as soon as there is room and time; also to sleep deeper."""
        if self.state == "sleeping" and self.level < self.claim.deepest and self.nap_at <= now:
            return True
        down = self.state in ("stopped", "failed", "sleeping")
        return down and (bool(self.waiting) or self.revive_at < math.inf)

    def leaving(self) -> int | None:
        """Order of the first wish to end this run: to unload it, or to run it with other settings."""
        run = self.run
        orders = [] if self.unload_order is None else [self.unload_order]
        if run is not None:
            orders += [waiter.order for waiter in self.waiting if not run_alike(waiter.spec, run.spec)]
        return min(orders, default=None)

    def status(self, now: float) -> ReplicaStatus:
        run = self.run
        expires_at = None
        if run is not None and self.keep_alive >= 0:
            left = self.keep_alive if run.in_flight else self.expires_at - now
            expires_at = self.owner.clock() + left
        turns = run.replica.turns if run is not None else None
        return ReplicaStatus(
            name=self.spec.name,
            model=self.original,
            state=self.state,
            engine=self.spec.engine,
            in_flight=run.in_flight if run else 0,
            waiting=len(self.waiting) + (turns.waiting if turns is not None else 0),
            loaded_at=run.loaded_at if run else None,
            expires_at=expires_at,
            context=run.replica.context if run else None,
            size=self.spec.facts.size,
            pid=run.replica.pid if run else None,
            progress=self.progress,
            error=str(self.error) if self.error else self.last_words,
            lost=is_lost(self.standing(), now),
        )

    def begins(self, run: Run, now: float) -> None:
        """It is ready."""
        self.run, self.spec, self.state, self.has_run = run, run.spec, "ready", True
        self.error, self.last_words, self.level = None, None, 0
        self.gpus = run.replica.gpus or self.gpus
        self.without, self.failed_apart = frozenset(), None
        self.stays_until = now + min(now - self.began, MOST_STAY)
        if not self._is_revived(now):  # else it stays as long as callers wanted the life that was cut short
            self.keep_alive = run.spec.keep_alive
            self.idle_since(now)
        self.revive_at = math.inf

    def idle_since(self, now: float) -> None:
        self.expires_at = now + self.keep_alive if self.keep_alive >= 0 else math.inf
        self.nap_at = now + self.naps[0] if self.naps else math.inf

    def sleeps(self, level: int, now: float) -> None:
        """It has fallen asleep."""
        self.state, self.level = "sleeping", level
        self.nap_at = now + self.naps[level] if level < len(self.naps) else math.inf

    def wakes(self, now: float) -> None:
        self.state, self.level = "ready", 0
        self.idle_since(now)

    def died(self, now: float, last_words: str) -> None:
        """Its engine has ended. It is brought back if it would still be loaded: until the time it had left."""
        run = self.run
        assert run is not None
        if run.in_flight:
            self.idle_since(now)
        self.run, self.open, self.error, self.last_words = None, None, None, last_words
        self.failures = 1 if now - run.ready_at >= STABLE_SECONDS else self.failures + 1
        self.retry_at = now + pause_after(self.failures)
        wanted = self.unload_order is None and self.expires_at > now
        self.state, self.revive_at = ("failed", self.retry_at) if wanted else ("stopped", math.inf)

    def not_started(self, now: float, error: Exception) -> None:
        """A start has failed. One that ran before is tried again unasked, and so is a server elsewhere, where
        that costs nothing; what never ran here is not likely to."""
        self.state, self.error, self.last_words = "failed", None, str(error)
        self.failures += 1
        if isinstance(error, EngineStartFailed):
            # For other errors (nothing answers there, a defect) the next caller is not turned away unasked.
            self.error, self.retry_at = error, now + pause_after(self.failures)
        if self.waiting and not self._is_revived(now):
            self.keep_alive = self.spec.keep_alive
            self.idle_since(now)
        wanted = self.unload_order is None and (self.has_run or not self.engine.occupies)
        self.revive_at = now + pause_after(self.failures + 1) if wanted else math.inf

    def ran_out_of_memory(self, spec: ModelSpec, rivals: frozenset[str]) -> None:
        """So has the start that failed, with these models beside it on its GPUs. Once it is tried without them, for those
        who wait: again and again would drive them out for each request."""
        if self.without or not rivals:
            self.without, self.failed_apart = frozenset(), spec
        elif self.waiting and not (self.failed_apart and run_alike(self.failed_apart, spec)):
            self.without = rivals

    def _is_revived(self, now: float) -> bool:
        return self.revive_at < math.inf and self.expires_at > now

    def let_go(self) -> None:
        """It was unloaded, or is not to come back: what it did before does not count any more."""
        self.state, self.failures, self.revive_at, self.level = "stopped", 0, math.inf, 0
        self.without, self.failed_apart = frozenset(), None

    def gone(self) -> None:
        """It has ended, however: who wanted that need not wait any longer."""
        self.unload_order = None
        unloaded, self.unloaded = self.unloaded, []
        for future in unloaded:
            if not future.done():
                future.set_result(None)


def pause_after(failures: int) -> float:
    """Seconds before the next start: the first restart is immediate, then 0.5 s, doubling to 30 s."""
    return 0.0 if failures < 2 else min(FIRST_PAUSE * 2.0 ** min(failures - 2, 16), LONGEST_PAUSE)


def run_alike(one: ModelSpec, other: ModelSpec) -> bool:
    """The same running engine serves both."""
    return one is other or bool(_what_runs(one) == _what_runs(other))


_what_runs = attrgetter(
    *(
        "engine",
        "source",
        "served_name",
        "api_key",
        "reach",
        "strict",
        "context",
        "parallel",
        "threads",
        "chat_template",
        "mmproj",
    ),
    "vllm",
)
