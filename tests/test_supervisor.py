"""The supervisor's promises, in virtual time and with engines that a test holds."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from portico.engines import Claim, Device, Facts, ModelSpec
from portico.engines.lives import pause_after
from portico.engines.supervisor import Lease, Supervisor
from portico.errors import Busy, EngineStartFailed, ShuttingDown, UpstreamUnreachable, WaitedTooLong
from portico.testing import FakeEngine, FakeReplica
from virtual_time import run


def spec(name: str = "a", **more: Any) -> ModelSpec:
    return ModelSpec(**{"name": name, "engine": "llamacpp", "source": f"/{name}.gguf", **more})


class World:
    """A supervisor over one fake engine; `ask` is a caller who waits in the background."""

    def __init__(self, **settings: Any) -> None:
        self.engine = FakeEngine()
        self.remote = FakeEngine()
        self.remote.occupies = False
        engines = {"llamacpp": self.engine, "remote": self.remote}
        self.supervisor = Supervisor(
            engines, clock=lambda: 1e9 + asyncio.get_running_loop().time(), **settings
        )

    def ask(self, of: ModelSpec) -> asyncio.Task[Lease]:
        return asyncio.ensure_future(self.supervisor.ensure_ready(of))

    def state(self, name: str = "a") -> str:
        return next(status.state for status in self.supervisor.states() if status.name == name)


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def test_in_virtual_time() -> None:
        run(test())  # type: ignore[arg-type]

    test_in_virtual_time.__doc__ = test.__doc__
    return test_in_virtual_time


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# ---- loading


@in_virtual_time
async def test_callers_join_a_load_under_way() -> None:
    world = World()
    world.engine.starts_may_end.clear()
    callers = [world.ask(spec()) for _ in range(5)]
    await world.engine.start_began.wait()
    callers.append(world.ask(spec()))
    assert world.state() == "starting"
    world.engine.starts_may_end.set()
    leases = await asyncio.gather(*callers)
    assert len(world.engine.replicas) == 1
    assert {lease.replica for lease in leases} == set(world.engine.replicas)
    assert all(lease.load_ns > 0 for lease in leases)


@in_virtual_time
async def test_a_ready_model_is_served_without_waiting() -> None:
    world = World()
    (await world.ask(spec())).release()
    again = world.supervisor.ensure_ready(spec())
    with pytest.raises(StopIteration) as ended:  # it never suspends
        again.send(None)
    assert ended.value.value.replica is world.engine.replicas[0]


@in_virtual_time
async def test_a_load_that_nobody_waits_for_any_more_completes() -> None:
    world = World()
    world.engine.starts_may_end.clear()
    caller = world.ask(spec(keep_alive=10))
    await world.engine.start_began.wait()
    caller.cancel()
    await settled()
    assert world.supervisor.states()[0].waiting == 0
    world.engine.starts_may_end.set()
    await settled()
    assert world.state() == "ready" and world.supervisor.states()[0].in_flight == 0
    await asyncio.sleep(11)
    assert world.state() == "stopped"


@in_virtual_time
async def test_a_caller_cancelled_just_after_his_turn_gives_back() -> None:
    world = World()
    caller = world.ask(spec())
    for _ in range(100):
        await asyncio.sleep(0)
        if world.supervisor.states() and world.supervisor.states()[0].in_flight:
            break
    assert not caller.done()
    caller.cancel()  # his lease is granted, but he has not run yet
    await settled()
    assert caller.cancelled()
    assert world.supervisor.states()[0].in_flight == 0


@in_virtual_time
async def test_a_load_that_does_not_go_on_fails_and_names_the_setting() -> None:
    world = World(load_timeout=5)
    world.engine.starts_may_end.clear()
    with pytest.raises(EngineStartFailed, match=r"no progress was seen for 5 s.*--load-timeout"):
        await world.ask(spec())
    assert world.state() == "failed" and world.engine.starting == 0


@in_virtual_time
async def test_a_load_may_take_long_while_it_goes_on() -> None:
    world = World(load_timeout=5)
    world.engine.starts_may_end.clear()
    asking = world.ask(spec())
    for _ in range(10):
        await asyncio.sleep(4)
        assert world.state() == "starting"
        world.engine.progressed()
    began = asyncio.get_running_loop().time()
    with pytest.raises(EngineStartFailed):
        await asking
    assert asyncio.get_running_loop().time() - began == pytest.approx(5)


@in_virtual_time
async def test_an_engine_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineStartFailed, match="no engine 'vllm', only llamacpp, remote"):
        await World().ask(spec(engine="vllm"))


@in_virtual_time
async def test_too_many_waiting_callers_are_turned_away() -> None:
    world = World(max_queue=3)
    world.engine.starts_may_end.clear()
    waiting = [world.ask(spec(name)) for name in "aab"]
    await settled()
    with pytest.raises(Busy):
        await world.ask(spec("a"))
    waiting[0].cancel()
    await settled()
    waiting.append(world.ask(spec("c")))
    world.engine.starts_may_end.set()
    assert len(await asyncio.gather(*waiting[1:])) == 3


@in_virtual_time
async def test_who_waits_too_long_for_room_is_turned_away_and_the_setting_named() -> None:
    world = World(max_loaded=1, patience=5, max_queue=1)
    held = await world.ask(spec("b"))
    for _ in range(2):  # and does not count as waiting any more
        began = asyncio.get_running_loop().time()
        with pytest.raises(WaitedTooLong, match=r"waited 5 s for its turn \(queue_timeout\)"):
            await world.ask(spec("a"))
        assert asyncio.get_running_loop().time() - began == pytest.approx(5)
        assert [status.waiting for status in world.supervisor.states()] == [0, 0]
    waiting = world.ask(spec("a"))
    await asyncio.sleep(4)
    held.release()
    assert (await waiting).replica.spec.name == "a"


@in_virtual_time
async def test_loading_is_no_waiting_for_a_turn() -> None:
    world = World(patience=5)
    world.engine.starts_may_end.clear()
    first = world.ask(spec())
    await asyncio.sleep(4)
    second = world.ask(spec())
    await asyncio.sleep(60)
    assert not first.done() and not second.done()
    world.engine.starts_may_end.set()
    assert len(await asyncio.gather(first, second)) == 2


@in_virtual_time
async def test_who_leaves_while_there_is_a_limit_on_waiting_is_dropped() -> None:
    world = World(max_loaded=1, patience=5)
    held = await world.ask(spec("b"))
    leaving = world.ask(spec("a"))
    await asyncio.sleep(1)
    leaving.cancel()
    await settled()
    assert [status.waiting for status in world.supervisor.states()] == [0, 0]
    held.release()
    await asyncio.sleep(10)
    assert [replica.spec.name for replica in world.engine.replicas] == ["b"]


@in_virtual_time
async def test_a_model_with_other_settings_is_loaded_anew_when_it_is_idle() -> None:
    world = World()
    old = await world.ask(spec(context=100))
    asking = world.ask(spec(context=200))
    later = world.ask(spec(context=100))
    await settled()
    assert not asking.done() and not later.done()
    old.release()
    new = await asking
    assert new.replica.context == 200 and old.replica.stopped
    new.release()
    assert (await later).replica.context == 100


@in_virtual_time
async def test_what_does_not_change_the_engine_does_not_reload_it() -> None:
    world = World()
    (await world.ask(spec())).release()
    changed = spec(aliases=("b",), facts=Facts(size=5), chat_fallback="prompt")
    lease = await world.ask(changed)
    assert len(world.engine.replicas) == 1 and lease.replica.spec is changed


# ---- keep_alive


@in_virtual_time
async def test_an_idle_model_is_unloaded_after_its_keep_alive() -> None:
    world = World()
    lease = await world.ask(spec(keep_alive=60))
    await asyncio.sleep(100)
    assert world.state() == "ready"  # in use
    lease.release()
    status = world.supervisor.states()[0]
    assert status.expires_at == pytest.approx(world.supervisor.clock() + 60)
    await asyncio.sleep(59)
    assert world.state() == "ready"
    await asyncio.sleep(2)
    assert world.state() == "stopped" and world.supervisor.states()[0].expires_at is None


@in_virtual_time
async def test_each_use_starts_the_time_anew() -> None:
    world = World()
    for _ in range(10):
        (await world.ask(spec(keep_alive=60))).release()
        await asyncio.sleep(40)
    assert len(world.engine.replicas) == 1


@in_virtual_time
async def test_the_last_keep_alive_wins_and_stays() -> None:
    world = World()
    one, two = await world.ask(spec()), await world.ask(spec())
    one.release(0)
    await settled()
    assert world.state() == "ready"  # two still runs
    two.release(30)
    (await world.ask(spec())).release()
    await asyncio.sleep(29)
    assert world.state() == "ready"
    await asyncio.sleep(2)
    assert world.state() == "stopped"


@in_virtual_time
async def test_zero_unloads_and_negative_never() -> None:
    world = World()
    (await world.ask(spec("a"))).release(0)
    (await world.ask(spec("b"))).release(-1)
    await settled()
    assert world.state("a") == "stopped"
    await asyncio.sleep(1e7)
    assert world.state("b") == "ready" and world.supervisor.states()[1].expires_at is None
    (await world.ask(spec("b"))).release(5)
    await asyncio.sleep(6)
    assert world.state("b") == "stopped"


@in_virtual_time
async def test_a_keep_alive_ends_with_the_load_it_was_given_to() -> None:
    world = World()
    (await world.ask(spec(keep_alive=60))).release(0)
    await settled()
    await world.supervisor.load(spec(keep_alive=60))
    await asyncio.sleep(59)
    assert world.state() == "ready"


@in_virtual_time
async def test_release_counts_once() -> None:
    world = World()
    one, two = await world.ask(spec()), await world.ask(spec())
    one.release()
    one.release(0)
    assert world.supervisor.states()[0].in_flight == 1
    two.release()
    assert world.supervisor.states()[0].in_flight == 0


# ---- unloading


@in_virtual_time
async def test_unload_waits_for_running_requests_and_holds_back_new_ones() -> None:
    world = World()
    lease = await world.ask(spec())
    unloading = asyncio.ensure_future(world.supervisor.unload("a"))
    await settled()
    later = world.ask(spec())
    await settled()
    assert not unloading.done() and not later.done()
    lease.release()
    await unloading
    assert (await later).replica is world.engine.replicas[1]
    await world.supervisor.unload("never heard of")


@in_virtual_time
async def test_unload_during_a_load_serves_those_who_waited() -> None:
    world = World()
    world.engine.starts_may_end.clear()
    asking = world.ask(spec())
    await world.engine.start_began.wait()
    unloading = asyncio.ensure_future(world.supervisor.unload("a"))
    await settled()
    world.engine.starts_may_end.set()
    lease = await asking
    assert not unloading.done()
    lease.release()
    await unloading
    assert len(world.engine.replicas) == 1


# ---- more models than fit


@in_virtual_time
async def test_the_idle_model_that_expires_first_gives_way() -> None:
    world = World(max_loaded=2)
    (await world.ask(spec("a"))).release(100)
    (await world.ask(spec("b"))).release(50)
    (await world.ask(spec("c"))).release()
    assert [world.state(name) for name in "abc"] == ["ready", "stopped", "ready"]
    assert world.engine.most_running == 2


@in_virtual_time
async def test_a_busy_model_is_not_evicted_and_not_fed_for_ever() -> None:
    world = World(max_loaded=1)
    a = await world.ask(spec("a"))
    b = world.ask(spec("b"))
    await settled()
    more = world.ask(spec("a"))  # came after b: it must not keep b out
    await settled()
    assert not b.done() and not more.done() and world.state("a") == "ready"
    a.release()
    (await b).release()
    assert (await more).replica is world.engine.replicas[2]
    assert world.engine.most_running == 1


@in_virtual_time
async def test_who_is_held_back_goes_on_when_the_other_leaves() -> None:
    world = World(max_loaded=1)
    a = await world.ask(spec("a"))
    b = world.ask(spec("b"))
    await settled()
    more = world.ask(spec("a"))
    await settled()
    b.cancel()
    assert (await more).replica is a.replica


@in_virtual_time
async def test_servers_elsewhere_need_no_room() -> None:
    world = World(max_loaded=1)
    leases = [await world.ask(spec("a")), await world.ask(spec("b", engine="remote"))]
    assert [lease.replica.stopped for lease in leases] == [False, False]


# ---- failures


@in_virtual_time
async def test_a_failed_start_reaches_everybody_who_waited() -> None:
    world = World()
    world.engine.fail("unknown model architecture: 'x'")
    callers = [world.ask(spec()) for _ in range(3)]
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineStartFailed] * 3
    assert world.state() == "failed" and "unknown model" in (world.supervisor.states()[0].error or "")
    assert (await world.ask(spec())).replica  # the first retry is immediate


@in_virtual_time
async def test_starts_that_keep_failing_are_not_tried_for_every_caller() -> None:
    world = World()
    world.engine.fail("damaged", times=100)
    tried = []
    for _ in range(400):
        with pytest.raises(EngineStartFailed, match="damaged"):
            await world.ask(spec())
        tried.append(100 - len(world.engine._failures))
        await asyncio.sleep(0.25)
    assert tried[:4] == [1, 2, 2, 3]
    assert tried[-1] <= 10
    assert [pause_after(n) for n in (1, 2, 3, 4, 8, 9, 99)] == [0, 0.5, 1, 2, 30, 30, 30]


@in_virtual_time
async def test_an_unreachable_server_is_tried_again_at_once() -> None:
    world = World()
    far = spec(engine="remote")
    world.remote.fail(UpstreamUnreachable(url="http://far"), times=3)
    for _ in range(3):
        with pytest.raises(UpstreamUnreachable):
            await world.ask(far)
    assert (await world.ask(far)).replica


@in_virtual_time
async def test_a_defect_of_an_engine_reaches_the_caller() -> None:
    world = World()
    world.engine.fail(ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        await world.ask(spec())


@in_virtual_time
async def test_a_dead_engine_is_replaced_for_the_next_caller() -> None:
    world = World()
    lease = await world.ask(spec())
    world.engine.replicas[0].crash("GGML_ASSERT(x) failed")
    status = world.supervisor.states()[0]
    assert (status.state, status.error, status.pid) == ("failed", "GGML_ASSERT(x) failed", None)
    assert not status.lost  # it is about to be started
    again = await world.ask(spec())
    assert again.replica is world.engine.replicas[1]
    lease.release()
    assert world.supervisor.states()[0].in_flight == 1
    await settled()
    assert world.engine.replicas[0].stopped


@in_virtual_time
async def test_who_waited_for_a_busy_engine_that_died_goes_on() -> None:
    world = World()
    await world.ask(spec(context=100))
    other = world.ask(spec(context=200))
    await settled()
    world.engine.replicas[0].crash()
    assert world.state() == "failed"  # whoever looks notices
    assert (await other).replica.context == 200


@in_virtual_time
async def test_the_room_of_a_dead_engine_is_given_away_by_whoever_notices() -> None:
    world = World(max_loaded=1, max_queue=1)
    held = await world.ask(spec("b"))
    waiting = world.ask(spec("a"))
    await settled()
    world.engine.replicas[0].crash()
    with pytest.raises(Busy):
        await world.ask(spec("b"))
    assert (await waiting).replica.spec.name == "a"
    held.release()


@in_virtual_time
async def test_an_engine_that_keeps_dying_is_restarted_ever_later() -> None:
    world = World()
    loop, waited = asyncio.get_running_loop(), []
    for _ in range(5):
        (await world.ask(spec())).release()
        world.engine.replicas[-1].crash()
        began = loop.time()
        (await world.ask(spec())).release()
        waited.append(round(loop.time() - began, 3))
    assert waited == [0, 0.5, 1, 2, 4]
    await asyncio.sleep(61)  # it lived
    world.engine.replicas[-1].crash()
    began = loop.time()
    await world.ask(spec())
    assert loop.time() - began < 0.01


@in_virtual_time
async def test_an_engine_that_dies_is_started_again_though_nobody_asks() -> None:
    world = World()
    (await world.ask(spec())).release(-1)
    world.engine.replicas[0].crash()
    await settled()
    assert world.state() == "ready" and world.engine.replicas[0].stopped
    await asyncio.sleep(1e6)
    assert world.state() == "ready"  # for as long as the caller wanted, who knew nothing of the crash


@in_virtual_time
async def test_an_engine_that_died_is_not_started_again_when_it_would_not_be_loaded_any_more() -> None:
    world = World()
    (await world.ask(spec(keep_alive=60))).release()
    world.engine.fail("no memory", times=100)
    world.engine.replicas[0].crash()
    await asyncio.sleep(59)
    assert world.supervisor.states()[0].lost
    await asyncio.sleep(2)
    tried = 100 - len(world.engine._failures)
    assert 4 < tried < 12
    assert world.state() == "stopped" and not world.supervisor.states()[0].lost
    await asyncio.sleep(1000)
    assert tried == 100 - len(world.engine._failures)
    world.engine._failures.clear()
    (await world.ask(spec(keep_alive=60))).release()
    assert world.state() == "ready" and not world.supervisor.states()[0].lost
    await asyncio.sleep(59)
    assert world.state() == "ready"


@in_virtual_time
async def test_an_engine_that_dies_while_it_is_to_be_unloaded_stays_away() -> None:
    world = World()
    await world.ask(spec())
    unloading = asyncio.ensure_future(world.supervisor.unload("a"))
    await settled()
    world.engine.replicas[0].crash()
    await unloading
    await settled()
    assert world.state() == "stopped" and len(world.engine.replicas) == 1


@in_virtual_time
async def test_a_server_about_to_stop_starts_nothing_unasked() -> None:
    """A service manager's SIGTERM goes to the engines too."""
    world = World()
    (await world.ask(spec())).release()
    world.supervisor.wind_down()
    world.engine.replicas[0].crash()
    await asyncio.sleep(60)
    assert len(world.engine.replicas) == 1
    (await world.ask(spec())).release()  # who had asked before may still be served
    assert len(world.engine.replicas) == 2


@in_virtual_time
async def test_an_engine_that_dies_during_the_stop_is_cleared_away_too() -> None:
    world = World()
    for name in ("a", "b"):
        (await world.ask(spec(name))).release()
    world.engine.stops_may_end.clear()
    unloading = asyncio.ensure_future(world.supervisor.unload("a"))
    await world.engine.stop_began.wait()
    stopping = asyncio.ensure_future(world.supervisor.stop())  # it waits for "a" to be gone
    await settled()
    world.engine.replicas[1].crash()
    world.engine.stops_may_end.set()
    await asyncio.gather(stopping, unloading)
    assert not world.engine.running


@in_virtual_time
async def test_unload_ends_the_tries_to_start_it_again() -> None:
    world = World()
    (await world.ask(spec())).release()
    world.engine.fail("no memory", times=100)
    world.engine.replicas[0].crash()
    await asyncio.sleep(5)
    assert world.state() == "failed" and world.supervisor.states()[0].lost
    await world.supervisor.unload("a")
    tried = len(world.engine._failures)
    await asyncio.sleep(100)
    assert world.state() == "stopped" and tried == len(world.engine._failures)


@in_virtual_time
async def test_an_engine_that_keeps_dying_comes_back_ever_later_and_for_ever() -> None:
    world = World()
    (await world.ask(spec())).release(-1)
    for _ in range(12):
        assert world.state() == "ready"
        world.engine.replicas[-1].crash()
        await asyncio.sleep(pause_after(12) + 1)
    began = len(world.engine.replicas)
    for _ in range(200):
        world.engine.replicas[-1].crash()
        await asyncio.sleep(0.25)
    assert len(world.engine.replicas) - began <= 2


@in_virtual_time
async def test_a_server_elsewhere_that_did_not_answer_is_looked_for() -> None:
    world = World()
    world.remote.fail(UpstreamUnreachable(url="http://far"), times=5)
    with pytest.raises(UpstreamUnreachable):
        await world.ask(spec(engine="remote", keep_alive=-1))
    assert not world.supervisor.states()[0].lost
    await asyncio.sleep(5)
    assert world.supervisor.states()[0].lost
    await asyncio.sleep(60)
    assert world.state() == "ready"


@in_virtual_time
async def test_a_model_that_never_ran_is_not_started_again_unasked() -> None:
    world = World()
    world.engine.fail("unknown model architecture: 'x'")
    with pytest.raises(EngineStartFailed):
        await world.ask(spec())
    await asyncio.sleep(100)
    assert world.state() == "failed" and world.supervisor.states()[0].lost and not world.engine.replicas


@in_virtual_time
async def test_an_engine_that_died_drives_nobody_out_when_it_comes_back() -> None:
    world = World(max_loaded=1)
    (await world.ask(spec("a"))).release()
    world.engine.fail("no memory")
    world.engine.replicas[0].crash()
    await settled()
    (await world.ask(spec("b"))).release(10)
    await asyncio.sleep(5)
    assert world.state("b") == "ready" and world.state("a") == "failed"
    await asyncio.sleep(11)
    assert world.state("b") == "stopped" and world.state("a") == "ready"


@in_virtual_time
async def test_it_says_what_happens() -> None:
    said: list[tuple[str, str]] = []
    world = World(say=lambda event, **facts: said.append((event, facts["model"])))
    world.engine.fail("no luck")
    with pytest.raises(EngineStartFailed):
        await world.ask(spec("a"))
    (await world.ask(spec("a"))).release()
    world.engine.replicas[-1].crash()
    (await world.ask(spec("a"))).release(0)
    await settled()
    assert [event for event, _ in said] == [
        "model not loaded",
        "model loaded",
        "engine died",
        "model loaded",
        "model unloaded",
    ]


# ---- the end


@in_virtual_time
async def test_stop_ends_engines_loads_and_waits() -> None:
    world = World(max_loaded=2)
    serving = await world.ask(spec("a"))
    world.engine.starts_may_end.clear()
    loading, queued = world.ask(spec("b")), world.ask(spec("c"))
    unloading = asyncio.ensure_future(world.supervisor.unload("b"))
    await settled()
    await world.supervisor.stop()
    for caller in (loading, queued, world.ask(spec("a"))):
        with pytest.raises(ShuttingDown):
            await caller
    await unloading
    assert not world.engine.running and not world.engine.starting
    serving.release()
    assert {status.state for status in world.supervisor.states()} == {"stopped"}
    assert len(asyncio.all_tasks()) == 1


@in_virtual_time
async def test_stop_waits_for_nobody_who_goes_to_sleep_or_wakes_up() -> None:
    """They may take minutes, or for ever."""
    for hangs in ("dozing", "waking"):
        world = sleepy()
        (await world.ask(spec(keep_alive=100))).release()
        (world.engine.stops_may_end if hangs == "dozing" else world.engine.starts_may_end).clear()
        await asyncio.sleep(15)
        asking = world.ask(spec(keep_alive=100))
        await settled()
        assert world.state() == hangs
        stopping = asyncio.ensure_future(world.supervisor.stop())
        await settled()
        assert world.engine.stop_began.is_set(), hangs
        world.engine.stops_may_end.set()
        await stopping
        with pytest.raises(ShuttingDown):
            await asking
        assert not world.engine.running and len(asyncio.all_tasks()) == 1


@in_virtual_time
async def test_stop_lets_an_engine_end_that_is_just_ended() -> None:
    """Also one that is ended because it does not wake: cancelled, it would live on."""
    world = sleepy()
    (await world.ask(spec(keep_alive=100))).release()
    await asyncio.sleep(15)
    world.engine.fails_to_wake = True
    world.engine.stops_may_end.clear()
    asking = world.ask(spec(keep_alive=100))
    await world.engine.stop_began.wait()
    stopping = asyncio.ensure_future(world.supervisor.stop())
    await settled()
    assert not stopping.done()
    world.engine.stops_may_end.set()
    await stopping
    with pytest.raises(ShuttingDown):
        await asking
    assert not world.engine.running


@in_virtual_time
async def test_one_that_takes_too_long_to_sleep_or_to_wake_is_ended() -> None:
    said: list[tuple[str, str]] = []
    world = sleepy(load_timeout=30, say=lambda event, **facts: said.append((event, facts.get("error", ""))))
    (await world.ask(spec(keep_alive=100))).release()
    sleep, hangs = world.engine.sleep, asyncio.Event()

    async def sleeps_badly(replica: FakeReplica, level: int) -> None:
        await hangs.wait()

    world.engine.sleep = sleeps_badly  # type: ignore[method-assign]
    await asyncio.sleep(45)
    assert world.state() == "stopped"
    world.engine.sleep = sleep  # type: ignore[method-assign]
    (await world.ask(spec(keep_alive=100))).release()
    await asyncio.sleep(15)
    world.engine.wake = lambda replica: sleeps_badly(replica, 0)  # type: ignore[method-assign]
    assert (await world.ask(spec(keep_alive=100))).replica is world.engine.replicas[2]
    why = "it took longer than 30 s (--load-timeout)."
    assert ("model does not sleep", why) in said and ("model does not wake", why) in said


def test_ready_costs_next_to_nothing() -> None:
    """Not a benchmark: ten times what was measured (1 us), so that a task or a timer for each call is seen."""

    async def ask_often() -> float:
        world = World()
        world.supervisor.clock = time.time
        wanted = spec()
        (await world.ask(wanted)).release()
        best = math.inf
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(500):
                (await world.supervisor.ensure_ready(wanted)).release()
            best = min(best, (time.perf_counter() - began) / 500)
        await world.supervisor.stop()
        return best

    assert asyncio.run(ask_often()) < 10e-6


# ---- sleep, memory, drains


def sleepy(**settings: Any) -> World:
    world = World(naps=(10.0, 20.0), **settings)
    world.engine.claims = {
        "a": Claim(device="gpu", memory=60, deepest=2),
        "b": Claim(device="gpu", memory=60),
    }
    return world


@in_virtual_time
async def test_an_idle_model_goes_down_its_ladder() -> None:
    world = sleepy()
    (await world.ask(spec(keep_alive=100))).release()
    (replica,) = world.engine.replicas
    seen = []
    for seconds in (9, 2, 18, 2, 68, 2):
        await asyncio.sleep(seconds)
        seen.append((world.state(), world.engine.asleep.get(replica)))
    assert seen == [
        ("ready", None),
        ("sleeping", 1),
        ("sleeping", 1),
        ("sleeping", 2),
        ("sleeping", 2),
        ("stopped", 2),
    ]


@in_virtual_time
async def test_a_sleeping_model_is_woken_by_a_caller_and_stays_the_same() -> None:
    world = sleepy()
    (await world.ask(spec(keep_alive=100))).release()
    await asyncio.sleep(15)
    world.engine.starts_may_end.clear()
    asking = world.ask(spec(keep_alive=100))
    await settled()
    assert world.state() == "waking" and not asking.done()
    world.engine.starts_may_end.set()
    lease = await asking
    assert len(world.engine.replicas) == 1 and lease.replica is world.engine.replicas[0]
    assert world.state() == "ready" and lease.load_ns > 0


@in_virtual_time
async def test_one_that_does_not_wake_is_started_anew() -> None:
    world = sleepy()
    (await world.ask(spec(keep_alive=100))).release()
    await asyncio.sleep(15)
    world.engine.fails_to_wake = True
    lease = await world.ask(spec(keep_alive=100))
    assert lease.replica is world.engine.replicas[1] and world.engine.replicas[0].stopped


@in_virtual_time
async def test_a_model_that_dies_in_its_sleep_comes_back_when_asked_for() -> None:
    world = sleepy()
    (await world.ask(spec(keep_alive=100))).release()
    await asyncio.sleep(15)
    world.engine.replicas[0].crash()
    await settled()
    lease = await world.ask(spec(keep_alive=100))
    assert lease.replica.died() is None and len(world.engine.running) == 1


@in_virtual_time
async def test_memory_that_is_missing_is_made_by_putting_another_to_sleep() -> None:
    async def free() -> dict[Device, int]:
        return {"gpu": 100 - world.engine.memory.get("gpu", 0)}

    world = sleepy(free=free)
    (await world.ask(spec("a"))).release()
    await world.ask(spec("b"))
    assert world.state("a") == "sleeping" and world.state("b") == "ready"
    assert world.engine.most_memory["gpu"] == 60


@in_virtual_time
async def test_memory_that_cannot_be_asked_for_is_unknown() -> None:
    """A driver that raises, or hangs."""

    async def lost() -> dict[Device, int]:
        raise RuntimeError("GPU is lost")

    async def hangs() -> dict[Device, int]:
        await asyncio.Event().wait()
        return {}

    for free in (lost, hangs):
        world = sleepy(free=free)
        (await world.ask(spec("a"))).release()
        await world.ask(spec("b"))
        assert world.state("a") == world.state("b") == "ready"


@in_virtual_time
async def test_what_is_free_is_asked_again_when_a_model_went_while_it_was_asked() -> None:
    """What was free before would keep out who waits, and nothing would be asked again."""
    asked, told = asyncio.Event(), asyncio.Event()

    async def free() -> dict[Device, int]:
        found: dict[Device, int] = {"gpu": 100 - world.engine.memory.get("gpu", 0)}
        asked.set()
        await told.wait()
        return found

    told.set()
    world = sleepy(free=free)
    world.engine.claims["x"] = Claim(device="gpu", memory=30)
    await world.ask(spec("x"))
    await world.ask(spec("b", keep_alive=0))
    told.clear()
    asked.clear()
    waiting = world.ask(spec("a"))
    await asked.wait()
    world.engine.replicas[1].crash()
    await settled()
    told.set()
    await asyncio.wait([waiting], timeout=1)
    assert waiting.done() and world.engine.most_memory["gpu"] == 90


@in_virtual_time
async def test_a_defect_leaves_nobody_in_the_queue() -> None:
    world = World(max_queue=1)

    def broken(spec: ModelSpec) -> Claim:
        raise ZeroDivisionError("a defect")

    await world.supervisor.load(spec("x"))
    (await world.ask(spec())).release(0)
    await settled()
    world.engine.claim = broken  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await world.ask(spec())
    del world.engine.claim
    assert world.supervisor.states()[1].waiting == 0
    assert (await world.ask(spec())).replica


@in_virtual_time
async def test_a_load_that_runs_out_of_memory_is_tried_once_more_alone() -> None:
    world = World()
    (await world.ask(spec("x"))).release()
    world.engine.fail(no_memory())
    lease = await world.ask(spec("a"))
    assert lease.replica.died() is None
    assert world.state("x") == "stopped", "it made room"


@in_virtual_time
async def test_out_of_memory_alone_is_told() -> None:
    world = World()
    (await world.ask(spec("x"))).release()
    world.engine.fail(no_memory(), times=2)
    with pytest.raises(EngineStartFailed, match="out of memory"):
        await world.ask(spec("a"))


def no_memory(*gpus: str) -> EngineStartFailed:
    return EngineStartFailed(model="m", reason="out of memory", out_of_memory=True, gpus=frozenset(gpus))


async def on_gpus(**models: str) -> World:
    """Models that are loaded and idle, each with its GPU."""
    world = World()
    for name, gpu in models.items():
        world.engine.claims[name] = Claim(device="gpu", memory=60)
        world.engine.gpus[name] = frozenset({gpu})
        (await world.ask(spec(name))).release(-1)
    world.engine.claims["m"] = Claim(device="gpu", memory=60)
    return world


@in_virtual_time
async def test_only_who_shares_its_gpus_makes_room_for_one_that_ran_out_of_memory() -> None:
    world = await on_gpus(x="0", y="1", z="2")
    world.engine.fail(no_memory("1"))
    assert (await world.ask(spec("m"))).replica
    assert [world.state(name) for name in "xyz"] == ["ready", "stopped", "ready"]


@in_virtual_time
async def test_nobody_makes_room_where_nobody_is() -> None:
    """A context that does not fit on a GPU fits no better when the others are empty too."""
    world = await on_gpus(x="0", y="1")
    world.engine.fail(no_memory("2"))
    with pytest.raises(EngineStartFailed, match="out of memory"):
        await world.ask(spec("m"))
    assert [world.state(name) for name in "xy"] == ["ready", "ready"]


@in_virtual_time
async def test_models_that_take_no_memory_there_make_no_room() -> None:
    """On another server, or of the host's memory, or asleep."""
    world = sleepy()
    (await world.ask(spec("far", engine="remote"))).release(-1)
    (await world.ask(spec("x"))).release(-1)
    (await world.ask(spec("a", keep_alive=-1))).release()
    await asyncio.sleep(15)
    world.engine.claims["m"] = Claim(device="gpu", memory=60)
    world.engine.fail(no_memory())
    with pytest.raises(EngineStartFailed, match="out of memory"):
        await world.ask(spec("m"))
    assert [world.state(name) for name in ("far", "x", "a")] == ["ready", "ready", "sleeping"]


@in_virtual_time
async def test_who_ran_out_of_memory_without_the_others_does_not_drive_them_out_again() -> None:
    world = await on_gpus(x="0")
    for _ in range(3):
        world.engine.fail(no_memory("0"), times=2)
        with pytest.raises(EngineStartFailed, match="out of memory"):
            await world.ask(spec("m"))
        (await world.ask(spec("x"))).release(-1)
        await asyncio.sleep(60)
        world.engine._failures.clear()
    assert len([one for one in world.engine.replicas if one.spec.name == "x"]) == 2
    world.engine.fail(no_memory("0"))
    assert (await world.ask(spec("m", context=100))).replica, "with other settings it may fit"


@in_virtual_time
async def test_a_start_without_the_others_that_fails_in_another_way_is_told() -> None:
    """Else nobody was ever refused, and it was started again and again."""
    world = await on_gpus(a="0")
    world.engine.fail(no_memory("0"))
    world.engine.fail("bad weights", times=100)
    with pytest.raises(EngineStartFailed, match="bad weights"):
        await asyncio.wait_for(world.ask(spec("m")), 60)
    with pytest.raises(EngineStartFailed, match="bad weights"):
        await asyncio.wait_for(world.ask(spec("m")), 60)


@in_virtual_time
async def test_a_copy_that_runs_out_of_memory_drives_no_copy_of_its_model_out() -> None:
    world = await on_gpus(x="0", y="0")
    world.engine.claims["x#2"] = Claim(device="gpu", memory=60)
    world.engine.fail(no_memory("0"), times=2)
    with pytest.raises(EngineStartFailed, match="out of memory"):
        await world.ask(spec("x#2", copy_of="x"))
    assert [world.state(name) for name in "xy"] == ["ready", "stopped"]


@in_virtual_time
async def test_a_copy_for_which_there_is_no_room_is_refused_and_the_other_goes_on() -> None:
    """Under much load a cold copy is asked for: to close the other one for it would answer nobody sooner."""
    world = World(max_loaded=1, drain_timeout=10)
    busy = await world.ask(spec("x"))
    with pytest.raises(EngineStartFailed, match="no room beside the other replicas of 'x'"):
        await asyncio.wait_for(world.ask(spec("x#2", copy_of="x")), 60)
    assert world.supervisor.is_open("x") and not world.engine.stopped_while_serving
    busy.release(0)
    await asyncio.sleep(1)
    assert (await world.ask(spec("x#2", copy_of="x"))).replica, "now there is"


@in_virtual_time
async def test_a_crashed_engine_whose_memory_is_not_free_yet_comes_back() -> None:
    """Nobody waits for it: other replicas of its model answer."""
    world = World()
    await world.ask(spec("x"))
    (await world.ask(spec())).release(-1)
    world.engine.fail(no_memory(), times=2)
    world.engine.replicas[-1].crash()
    await settled()
    assert world.state() == "failed" and "out of memory" in (world.supervisor.states()[1].error or "")
    await asyncio.sleep(5)
    assert world.state() == "ready" and world.state("x") == "ready"


@in_virtual_time
async def test_one_that_runs_out_of_memory_again_and_again_is_lost() -> None:
    world = World()
    await world.ask(spec("x"))
    (await world.ask(spec())).release(-1)
    world.engine.fail(no_memory(), times=5)
    world.engine.replicas[-1].crash()
    await asyncio.sleep(6)
    assert world.supervisor.states()[1].lost
    await asyncio.sleep(60)
    assert world.state() == "ready"


@in_virtual_time
async def test_unload_of_a_model_that_runs_out_of_memory_returns() -> None:
    world = World()
    await world.ask(spec("x"))
    world.engine.starts_may_end.clear()
    asking = world.ask(spec())
    await settled()
    asking.cancel()
    unloading = asyncio.ensure_future(world.supervisor.unload("a"))
    await settled()
    world.engine.fail(no_memory())
    world.engine.starts_may_end.set()
    await unloading


@in_virtual_time
async def test_going_deeper_wakes_nobody_into_memory_that_another_has() -> None:
    async def free() -> dict[Device, int]:
        return {"gpu": 100 - world.engine.memory.get("gpu", 0)}

    world = sleepy(free=free)
    (await world.ask(spec("a", keep_alive=-1))).release()
    (await world.ask(spec("b", keep_alive=200))).release()
    (replica, _) = world.engine.replicas
    await asyncio.sleep(100)
    assert world.engine.asleep[replica] == 1 and world.state("b") == "ready"
    assert world.engine.most_memory["gpu"] == 60
    await asyncio.sleep(105)
    assert world.state("b") == "stopped" and world.engine.asleep[replica] == 2


@in_virtual_time
async def test_running_requests_are_cut_when_others_have_waited_too_long() -> None:
    world = World(max_loaded=1, drain_timeout=30.0)
    lease = await world.ask(spec("x"))
    lease.replica.serving += 1
    asking = world.ask(spec("a"))
    await asyncio.sleep(29)
    assert not asking.done() and world.state("x") == "ready"
    await asyncio.sleep(2)
    assert (await asking).replica.spec.name == "a"
    assert world.engine.stopped_while_serving == [lease.replica]
    lease.release()


@in_virtual_time
async def test_a_model_that_was_just_loaded_is_used_before_it_gives_way() -> None:
    """It stays for as long as its loading took, at most ten seconds."""
    world = World(max_loaded=1)
    world.engine.starts_may_end.clear()
    first = world.ask(spec("x"))
    await asyncio.sleep(4)
    world.engine.starts_may_end.set()
    (await first).release()
    asking = world.ask(spec("a"))
    await asyncio.sleep(3.9)
    assert not asking.done() and world.state("x") == "ready"
    await asyncio.sleep(0.2)
    assert asking.done()
