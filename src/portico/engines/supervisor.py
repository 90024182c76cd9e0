"""The one owner of replicas: it promises a ready one, and nobody else starts or stops an engine.

`ensure_ready(spec)` is the seam. Callers never look at a state first: they ask, and wait, join a load under
way, or get an error. What is done next is decided in schedule.py and carried out here; everything runs in one
event loop, so that what was decided still holds when it is done.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any

from portico.engines import Account, Engine, ModelSpec, Progress, Replica
from portico.engines.lives import Lease, Model, ReplicaStatus, Run, Waiter, run_alike
from portico.engines.schedule import Plan, decide
from portico.errors import Busy, EngineError, EngineStartFailed, ShuttingDown, WaitedTooLong

__all__ = ["Lease", "ReplicaStatus", "Supervisor"]

LOOK_SECONDS = 5.0
"""How long is waited for what is free: where the driver of a GPU hangs, models are started without knowing."""
FRESH_SECONDS = 1.0
"""What is free holds for so long, while none of our models comes or goes."""


def _silence(event: str, **facts: object) -> None: ...


class Supervisor:
    """Owns every replica. Belongs to one event loop; all methods are called there.

    `max_queue` callers may wait for models, further ones get Busy. `patience`: seconds each of them waits until there
    is room for its model; 0: as long as it takes. `max_loaded` models take memory at once; 0: no limit. `free` tells
    the bytes that are free now, of the host and of each GPU; it is asked when somebody waits for a start, and None knows nothing.
    `load_timeout`: seconds a start may take without being seen to go on, and waking up or going to sleep in all.
    `drain_timeout`: seconds that running requests get when another model needs their model's place. `naps`: seconds
    of idleness until a model that can sleep does, and then until it sleeps deeper. `clock` gives seconds since the
    epoch. `say(event, **facts)` hears of loads, unloads and failures.

    A load goes on when everybody who waited for it has left: what it costs has been paid for the most part, and
    who leaves often comes back. It then expires like any other idle model, and gives way to a model that is
    waited for.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        *,
        max_queue: int = 512,
        patience: float = 0.0,
        max_loaded: int = 0,
        free: Callable[[], Awaitable[Mapping[Account, int]]] | None = None,
        load_timeout: float = 300.0,
        drain_timeout: float = 300.0,
        naps: Sequence[float] = (),
        clock: Callable[[], float] = time.time,
        say: Callable[..., None] = _silence,
    ) -> None:
        self.clock = clock
        self._engines, self._max_queue, self._max_loaded = dict(engines), max(max_queue, 1), max_loaded
        self._load_timeout, self._say = load_timeout, say
        self._patience = patience
        self._free, self._drain_timeout, self._naps = free, drain_timeout, tuple(naps)
        self._room: Mapping[Account, int] = {}
        """What is free, until then or until a model comes or goes."""
        self._room_until = -math.inf
        self._comings = 0
        """How often a model has come or gone."""
        self._looking = False
        self._models: dict[str, Model] = {}
        self._orders = count(1)
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._stopping = self._winding_down = False

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the first call: a supervisor is assembled before there is one."""
        return asyncio.get_running_loop()

    # ---- what callers ask

    async def ensure_ready(self, spec: ModelSpec) -> Lease:
        """A replica that answers, loaded first if it has to be. Raises EngineStartFailed, UpstreamUnreachable,
        Busy (too many wait already), WaitedTooLong, ShuttingDown.

        Hand in the same ModelSpec object each time: then a ready model costs a microsecond.
        """
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
        if model is None or self._stopping:
            return
        if model.state in ("stopped", "failed"):
            if model.state == "failed" and not model.waiting:
                model.let_go()
            return
        if model.unload_order is None:
            model.unload_order = next(self._orders)
        gone: asyncio.Future[None] = self._loop.create_future()
        model.unloaded.append(gone)
        self._advance()
        await gone

    def states(self) -> tuple[ReplicaStatus, ...]:
        """Every model that was asked for so far, from memory."""
        self._notice_deaths()
        now = self._now()
        return tuple(model.status(now) for model in self._models.values())

    def replicas(self) -> list[Replica]:
        """Those that answer now."""
        runs = [model.run for model in self._models.values() if model.state == "ready"]
        return [run.replica for run in runs if run is not None and run.replica.died() is None]

    def is_open(self, name: str) -> bool:
        """Whether who asks for the model now has it at once."""
        model = self._models.get(name)
        return model is not None and model.open is not None and model.open.replica.died() is None

    def doing(self, name: str) -> str:
        """What a model does now, in a few words, for somebody who waits for it."""
        model = self._models.get(name)
        if model is None or model.state == "ready":
            return f"{name} is reading the prompt"
        if model.progress is None:
            return f"{name} is {model.state}"
        stage, fraction = model.progress.stage, model.progress.fraction
        return f"{name}: {stage}" + (f" {fraction:.0%}" if fraction is not None else "")

    def context(self, name: str) -> int | None:
        """Tokens a request to this model may have, as it is loaded now; None: it is not, or does not tell."""
        model = self._models.get(name)
        return None if model is None or model.run is None else model.run.replica.context

    def wind_down(self) -> None:
        """From now on nothing is started unasked: the server is about to stop."""
        self._winding_down = True
        for model in self._models.values():
            model.revive_at = math.inf

    async def stop(self) -> None:
        """Ends every engine, busy or not, and every wait (ShuttingDown). Nothing is started afterwards."""
        self._stopping = True
        self._set_alarm(math.inf)
        models = list(self._models.values())
        for model in models:
            self._refuse(model, ShuttingDown())
            model.open = None
            if model.under_way is not None:
                model.under_way.cancel()
        # One engine that cannot be ended must not keep the others alive: their errors are looked at last.
        while self._tasks:  # one that ends may begin another
            await asyncio.gather(*self._tasks, return_exceptions=True)
        ended = [self._end(model) for model in models if model.run is not None]
        outcomes = await asyncio.gather(*ended, return_exceptions=True)
        for model in models:
            model.state = "stopped"
            model.gone()
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    # ---- waiting

    async def _wait_for(self, spec: ModelSpec) -> Lease:
        model = self._known(spec)
        self._notice_death(model)
        if (
            model.error is not None
            and model.state == "failed"
            and model.retry_at > self._now()
            and model.gave_up()
        ):
            raise model.error.with_traceback(None)  # it would grow by every caller it is raised to
        waits = model.open is None or model.open.spec is not spec
        if waits and self._waiting >= self._max_queue:
            raise Busy()
        waiter = Waiter(next(self._orders), spec, self._loop.create_future())
        model.waiting.append(waiter)
        self._waiting += 1
        try:
            self._advance()
            if self._patience:
                await self._has_room(model, waiter)
            return await waiter.future
        except BaseException:  # also what is no error of ours: else it would wait, and be counted, for ever
            self._dropped(model, waiter)
            raise

    async def _has_room(self, model: Model, waiter: Waiter) -> None:
        """Returns in time if the model is there, or on its way: loading has a limit of its own."""
        await asyncio.wait([waiter.future], timeout=self._patience)
        if not waiter.future.done() and model.state not in ("starting", "waking"):
            raise WaitedTooLong(seconds=self._patience)

    def _known(self, spec: ModelSpec) -> Model:
        if self._stopping:
            raise ShuttingDown()
        if spec.engine not in self._engines:
            reason = f"there is no engine {spec.engine!r}, only {', '.join(self._engines)}."
            raise EngineStartFailed(model=spec.name, reason=reason)
        model = self._models.get(spec.name)
        if model is None:
            self._models[spec.name] = model = Model(self, spec, self._engines[spec.engine])
            model.naps = self._naps[: model.claim.deepest]
        run = model.run
        if run is not None and run.spec is not spec and run_alike(spec, run.spec):
            model.spec = run.spec = run.replica.spec = spec  # the next caller with it is served at once
        return model

    def _dropped(self, model: Model, waiter: Waiter) -> None:
        """A caller does not wait any more: he has his error, or was cancelled before it was his turn, or between that
        and his waking up."""
        if waiter in model.waiting:
            model.waiting.remove(waiter)
            self._waiting -= 1
            if not model.waiting and model.state == "failed":
                model.without = frozenset()  # nobody is left for whom others would make room
            self._advance()
        elif not waiter.future.cancelled() and waiter.future.exception() is None:
            waiter.future.result().release()

    def given_back(self, run: Run, keep_alive: float | None) -> None:
        """A lease was released (called by the lease)."""
        model = run.model
        if model.run is not run:
            return  # of an engine that died meanwhile
        if keep_alive is not None:
            model.keep_alive = keep_alive
        if run.in_flight == 0:
            model.idle_since(self._now())
            if self._waiting or model.unload_order is not None or model.keep_alive == 0:
                self._advance()
            elif min(model.expires_at, model.nap_at) < self._alarm_at:
                self._set_alarm(min(model.expires_at, model.nap_at))

    # ---- deciding and doing

    def _advance(self) -> None:
        """Decides and does what follows from it. Called after every change; never waits."""
        if self._stopping:
            return
        now = self._now()
        # Asking the system and the GPUs costs something, and matters only to who would be started.
        starts = any(model.would_take_memory(now) for model in self._models.values())
        if starts and self._free is not None and now >= self._room_until:
            if not self._looking:
                self._looking = True
                self._spawn(self._look(self._free), "look what memory is free")
            return  # it is decided when that is known
        standings = [model.standing() for model in self._models.values()]
        plan = decide(standings, max_loaded=self._max_loaded, now=now, free=self._room if starts else None)
        for name in plan.serve:
            self._serve(self._models[name])
        for name in plan.start:
            model = self._models[name]
            spec = model.waiting[0].spec if model.waiting else model.spec
            model.claim = self._engines[spec.engine].claim(spec)
            model.gpus = frozenset(plan.gpus.get(name, ()))
            model.state, model.began = "starting", now
            model.under_way = self._spawn(self._load(model, spec), f"load {name}")
        for name in plan.refuse:
            model = self._models[name]
            model.without = frozenset()
            reason = f"there is no room beside the other replicas of {model.original!r}."
            self._refuse(model, EngineStartFailed(model=name, reason=reason))
        for name in plan.forget:
            self._models[name].let_go()
        for name in plan.wake:
            model = self._models[name]
            model.state = "waking"
            model.under_way = self._spawn(self._wake(model), f"wake {name}")
        for name, level in plan.sleep:
            model = self._models[name]
            model.state = "dozing"
            model.under_way = self._spawn(self._doze(model, level), f"put {name} to sleep")
        for name in plan.cut:
            self._say("requests cut", model=name, seconds=self._drain_timeout)
        for name in (*plan.stop, *plan.cut):
            self._begin_end(self._models[name])
        for name, model in self._models.items():
            held = name in plan.hold
            model.cut_at = min(model.cut_at, now + self._drain_timeout) if held else math.inf
        self._open(plan)
        cuts = (model.cut_at for model in self._models.values() if model.cut_at > now)
        self._set_alarm(min(plan.wake_at, *cuts, math.inf))

    async def _look(self, free: Callable[[], Awaitable[Mapping[Account, int]]]) -> None:
        """Asks what is free, again if a model came or went meanwhile, and decides."""
        comings = -1
        while comings != self._comings:
            comings = self._comings
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    self._room = await free()
            except Exception:  # whatever it is: what nobody knows must not keep callers waiting for ever
                self._room = {}
        self._room_until, self._looking = self._now() + FRESH_SECONDS, False
        self._advance()

    def _came_or_went(self) -> None:
        """A model takes memory that it did not, or gave some back: what was free before does not count any more."""
        self._comings += 1
        self._room_until = -math.inf
        self._advance()

    def _open(self, plan: Plan) -> None:
        for name, model in self._models.items():
            free = model.state == "ready" and name not in plan.hold and not model.waiting
            model.open = model.run if free else None

    def _serve(self, model: Model) -> None:
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

    def _refuse(self, model: Model, error: Exception) -> None:
        waiting, model.waiting = model.waiting, []
        self._waiting -= len(waiting)
        for waiter in waiting:
            if not waiter.future.done():
                waiter.future.set_exception(error)

    async def _load(self, model: Model, spec: ModelSpec) -> None:
        began = self._now()
        model.engine = self._engines[spec.engine]
        try:
            async with asyncio.timeout(self._load_timeout) as limit:

                def progressed(progress: Progress | None = None) -> None:
                    limit.reschedule(self._now() + self._load_timeout)
                    if progress is not None and progress != model.progress:
                        model.progress = progress
                        self._say("model loading", model=spec.name, **progress.facts())

                replica = await model.engine.start(spec, progressed, gpus=sorted(model.gpus))
        except TimeoutError:
            reason = f"no progress was seen for {self._load_timeout:g} s (--load-timeout)."
            self._load_failed(model, spec, EngineStartFailed(model=spec.name, reason=reason))
        except Exception as error:  # a defect of an engine must not leave callers waiting for ever
            self._load_failed(model, spec, error)
        else:
            now = self._now()
            model.begins(Run(model, spec, replica, now), now)
            replica.when_ended(lambda: self._notice_death(model))
            self._say("model loaded", model=spec.name, seconds=round(now - began, 3), pid=replica.pid)
        model.under_way = model.progress = None
        self._came_or_went()

    def _load_failed(self, model: Model, spec: ModelSpec, error: Exception) -> None:
        model.not_started(self._now(), error)
        if isinstance(error, EngineStartFailed) and error.out_of_memory:
            model.ran_out_of_memory(spec, self._rivals(model, error.gpus))
        else:  # or those who wait would never be told, whatever else fails
            model.without = frozenset()
        again = {"without": sorted(model.without)} if model.without else {}
        event = "model starts again without others" if again else "model not loaded"
        self._say(event, model=model.spec.name, error=str(error), **again)
        model.gone()
        if model.gave_up():
            self._refuse(model, error)

    def _rivals(self, model: Model, gpus: frozenset[str]) -> frozenset[str]:
        """The models that have memory which a start of this one lacked: of its device, and on its GPUs if these are known.
        No copies of it: they would drive each other out again and again."""
        found = set()
        for name, other in self._models.items():
            if other.run is None or other.state == "sleeping" or not other.engine.occupies:
                continue
            if other.original == model.original:
                continue
            theirs = other.run.replica.gpus
            if other.claim.device == model.claim.device and not (gpus and theirs and gpus.isdisjoint(theirs)):
                found.add(name)
        return frozenset(found)

    def _begin_end(self, model: Model) -> None:
        """A task of its own, whoever begins it: what ends an engine is never cancelled."""
        model.state, model.under_way = "stopping", None
        self._spawn(self._end(model), f"stop {model.spec.name}")

    async def _end(self, model: Model) -> None:
        run, model.state, model.open = model.run, "stopping", None
        assert run is not None
        try:
            await model.engine.stop(run.replica)
        finally:
            model.run = None
            model.let_go()
            self._say("model unloaded", model=model.spec.name)
            model.gone()
            self._came_or_went()

    async def _doze(self, model: Model, level: int) -> None:
        run = model.run
        assert run is not None
        try:
            async with asyncio.timeout(self._load_timeout):
                await model.engine.sleep(run.replica, level)
        except (EngineError, TimeoutError) as error:
            self._say("model does not sleep", model=model.spec.name, error=self._told(error))
            return self._begin_end(model)
        model.under_way = None
        if run.replica.died() is None:
            model.sleeps(level, self._now())
            self._say("model sleeps", model=model.spec.name, level=level)
        else:
            model.state = "ready"  # so that its death is noticed as any other
            self._notice_death(model)
        self._came_or_went()

    async def _wake(self, model: Model) -> None:
        run, began = model.run, self._now()
        assert run is not None
        try:
            async with asyncio.timeout(self._load_timeout):
                await model.engine.wake(run.replica)
        except (EngineError, TimeoutError) as error:
            self._say("model does not wake", model=model.spec.name, error=self._told(error))
            return self._begin_end(model)
        model.under_way = None
        model.wakes(self._now())
        self._notice_death(model)
        self._say("model wakes", model=model.spec.name, seconds=round(self._now() - began, 3))
        self._came_or_went()

    def _told(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"it took longer than {self._load_timeout:g} s (--load-timeout)."
        return str(error)

    def _notice_deaths(self) -> None:
        for model in self._models.values():
            self._notice_death(model)

    def _notice_death(self, model: Model) -> None:
        """A replica that died is counted and cleared away; it is started again when `retry_at` comes."""
        run = model.run
        if (
            run is None or model.state not in ("ready", "sleeping") or self._stopping
        ):  # `stop` ends what is left of it
            return
        last_words = run.replica.died()
        if last_words is None:
            return
        model.died(self._now(), last_words)
        if self._winding_down:
            model.revive_at = math.inf
        self._say("engine died", model=model.spec.name, last_words=last_words)
        model.gone()
        self._spawn(self._clear(model.engine, run.replica), f"clear {model.spec.name}")
        # Whoever notices, and whatever becomes of him: others may wait for the room, or for it to be idle.
        self._loop.call_soon(self._came_or_went)

    async def _clear(self, engine: Engine, replica: Replica) -> None:
        await engine.stop(replica)
        self._came_or_went()

    # ---- inside

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        # Not in the context of the request that caused it: its trace would be every later probe's too.
        task = self._loop.create_task(work, name=name, context=contextvars.Context())
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
        self._notice_deaths()
        self._advance()
