"""The supervisor under random callers, crashes, failures and clocks.

Checked throughout: no engine is stopped while serving, memory is not over-committed, counts are true. Checked
at the end: every caller got a lease or an error, exactly once, every wish to unload was met, and nothing is left
over.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from portico.engines import Account, Claim, ModelSpec
from portico.engines.supervisor import Lease, Supervisor
from portico.errors import Busy, EngineStartFailed
from portico.testing import FakeEngine
from virtual_time import VirtualLoop

KEEP_ALIVES = st.sampled_from([None, 0.0, 1.0, 60.0, -1.0])
MAX_QUEUE = 6
DRAIN = 50.0
CLAIMS = {
    "a": Claim(device="gpu", memory=40),
    "b": Claim(device="gpu", memory=60, deepest=2),
    "c": Claim(device="gpu", memory=80, deepest=1),
    "a#2": Claim(device="gpu", memory=40),
    "e": Claim(device="gpu", memory=30, count=2),
    "f": Claim(device="gpu", memory=70, count=2, deepest=2),
}


class Caller:
    """Asks for a model, holds it, gives it back."""

    def __init__(self, machine: SupervisorMachine, spec: ModelSpec) -> None:
        self.spec = spec
        self.lease: Lease | None = None
        self.task = machine.loop.create_task(self._ask(machine.supervisor))

    async def _ask(self, supervisor: Supervisor) -> None:
        self.lease = await supervisor.ensure_ready(self.spec)
        self.lease.replica.serving += 1

    def end(self, keep_alive: float | None) -> None:
        """Leaves, wherever it is."""
        if self.lease is None:
            self.task.cancel()
            return
        self.lease.replica.serving -= 1
        self.lease.release(keep_alive)
        self.lease.release(keep_alive)  # counts once
        self.lease = None


class SupervisorMachine(RuleBasedStateMachine):
    callers = Bundle("callers")

    @initialize(
        max_loaded=st.integers(0, 2),
        looks=st.booleans(),
        memory=st.sampled_from([None, 100]),
        gpus=st.sampled_from(["0", "01", "012"]),
    )
    def begin(self, max_loaded: int, looks: bool, memory: int | None, gpus: str) -> None:
        """`looks`: somebody asks for the states all the time, which is also how a death is noticed. `memory`: what
        each of the GPUs has of it, for models of which each takes a part; with it, some of them can sleep."""
        self.looks, self.memory, self.gpus, self.cuts = looks, memory, gpus, 0
        self.loop = VirtualLoop()
        self.max_loaded = max_loaded
        self.all: list[Caller] = []
        self.unloads: list[asyncio.Task[None]] = []
        self.loop.run_until_complete(self._begin(max_loaded))

    async def _begin(self, max_loaded: int) -> None:
        self.engine, self.elsewhere = FakeEngine(), FakeEngine()
        self.elsewhere.occupies = False
        if self.memory is not None:
            self.engine.claims = CLAIMS
        self.supervisor = Supervisor(
            {"llamacpp": self.engine, "remote": self.elsewhere},
            max_loaded=max_loaded,
            max_queue=MAX_QUEUE,
            load_timeout=20,
            drain_timeout=DRAIN,
            naps=(10.0, 20.0),
            free=self._free,
            clock=self.loop.time,
            say=self._hear,
        )

    def _hear(self, event: str, **facts: object) -> None:
        self.cuts += event == "requests cut"

    async def _free(self) -> dict[Account, int]:
        if self.memory is None:
            return {}
        taken = self.engine.memory
        return {gpu: self.memory - taken.get(gpu, 0) for gpu in self.gpus}

    # ---- what can happen

    @rule(
        target=callers,
        name=st.sampled_from(["a", "b", "c", "d", "a#2", "e", "f"]),
        context=st.sampled_from([None, None, None, 100]),
        settle=st.booleans(),
    )
    def ask(self, name: str, context: int | None, settle: bool) -> Caller:
        kind = "remote" if name == "d" else "llamacpp"
        copy_of = name.partition("#")[0] if "#" in name else ""
        spec = ModelSpec(
            name=name, copy_of=copy_of, engine=kind, source=f"/{name}", context=context, keep_alive=30
        )
        caller = Caller(self, spec)
        self.all.append(caller)
        if settle:
            self.loop.settle()
        return caller

    @rule(caller=consumes(callers), keep_alive=KEEP_ALIVES, settle=st.booleans())
    def end(self, caller: Caller, keep_alive: float | None, settle: bool) -> None:
        caller.end(keep_alive)
        if settle:
            self.loop.settle()

    @rule(target=callers, sleeper=st.sampled_from("bcf"), name=st.sampled_from("abcef"))
    def ask_beside_one_that_sleeps(self, sleeper: str, name: str) -> Caller:
        """What sleep is for, and too many steps in a row to be found by chance."""
        self.ask(sleeper, None, True).end(-1.0)
        self.loop.pass_time(12.0)
        return self.ask(name, None, True)

    @rule(turns=st.integers(1, 3))
    def a_few_turns(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule(seconds=st.sampled_from([0.1, 0.6, 5.0, 12.0, 31.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    @rule(starts=st.booleans(), stops=st.booleans())
    def hold_engines(self, starts: bool, stops: bool) -> None:
        for gate, hold in ((self.engine.starts_may_end, starts), (self.engine.stops_may_end, stops)):
            if hold:
                gate.clear()
            else:
                gate.set()

    @rule(which=st.integers(0, 3))
    def crash(self, which: int) -> None:
        alive = [replica for replica in self.engine.running if replica.last_words is None]
        if alive:
            alive[which % len(alive)].crash()

    @rule(out_of_memory=st.booleans(), gpus=st.sampled_from([set(), {"0"}, {"1"}]))
    def fail_the_next_start(self, out_of_memory: bool, gpus: set[str]) -> None:
        error = EngineStartFailed(
            model="m", reason="no luck", out_of_memory=out_of_memory, gpus=frozenset(gpus)
        )
        self.engine.fail(error)

    @rule(fails=st.booleans())
    def waking_fails(self, fails: bool) -> None:
        self.engine.fails_to_wake = fails

    @rule(name=st.sampled_from("abcdef"), leaves=st.booleans())
    def unload(self, name: str, leaves: bool) -> None:
        task = self.loop.create_task(self.supervisor.unload(name))
        self.loop.settle()
        if leaves:
            task.cancel()
        self.unloads.append(task)

    # ---- what always holds

    @invariant()
    def never_stopped_while_serving(self) -> None:
        """But for those that held up others for longer than `drain_timeout`."""
        if hasattr(self, "engine"):
            assert not self.engine.slept_while_serving
            stopped = self.engine.stopped_while_serving + self.elsewhere.stopped_while_serving
            assert len(stopped) <= self.cuts

    @invariant()
    def memory_is_not_over_committed(self) -> None:
        if getattr(self, "max_loaded", 0):
            assert self.engine.most_running <= self.max_loaded
        if getattr(self, "memory", None) is not None:
            assert self.engine.most_memory.keys() <= set(self.gpus)
            assert max(self.engine.most_memory.values(), default=0) <= self.memory

    @invariant()
    def counts_are_true(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.loop.settle()
        if not self.looks:
            return
        states = self.loop.run_until_complete(self._states())
        held = [caller.lease for caller in self.all if caller.lease is not None]
        for status in states:
            mine = [
                one for one in held if one.replica.pid == status.pid and one.replica.spec.name == status.name
            ]
            assert status.in_flight == len(mine)
        waiting = sum(not caller.task.done() for caller in self.all)
        assert sum(status.waiting for status in states) == waiting <= MAX_QUEUE

    async def _states(self) -> Any:
        return self.supervisor.states()

    # ---- the end: all doors open, everybody goes home

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self._everybody_goes_home()
            finally:
                self.loop.close()

    def _everybody_goes_home(self) -> None:
        self.hold_engines(False, False)
        self.engine.fails_to_wake = False
        for _ in range(200):  # who is served ends, so that who waits is served
            self.loop.pass_time(40)
            for caller in self.all:
                if caller.lease is not None:
                    caller.end(None)
            if all(caller.task.done() for caller in self.all) and all(task.done() for task in self.unloads):
                break
        assert all(task.done() for task in self.unloads), "somebody waits for ever until a model is unloaded"
        for caller in self.all:
            assert caller.task.done(), "somebody waits for ever"
            if not caller.task.cancelled():
                assert isinstance(caller.task.exception(), EngineStartFailed | Busy | None)
        self.never_stopped_while_serving()
        self.loop.run_until_complete(self.supervisor.stop())
        assert not self.engine.running and not self.elsewhere.running
        assert all(
            status.in_flight == status.waiting == 0 for status in self.loop.run_until_complete(self._states())
        )
        assert not asyncio.all_tasks(self.loop)


TestSupervisorMachine = SupervisorMachine.TestCase
TestSupervisorMachine.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
