"""What the supervisor decides, as values: one case for each branch of the decision tree."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from portico.engines.schedule import Plan, Standing, decide


def ready(name: str, **more: Any) -> Standing:
    return Standing(name=name, state="ready", **more)


def stopped(name: str, **more: Any) -> Standing:
    return Standing(name=name, state="stopped", **more)


def failed(name: str, **more: Any) -> Standing:
    return Standing(name=name, state="failed", **more)


DECISIONS = {
    "(1) ready: serve": ([ready("a", waiting=1)], Plan(serve=("a",))),
    "(1) leaving, but the caller came before": (
        [ready("a", waiting=1, leaving=2)],
        Plan(serve=("a",), hold=("a",)),
    ),
    "leaving, and the caller came after": ([ready("a", waiting=3, leaving=2)], Plan(stop=("a",))),
    "leaving and busy": ([ready("a", in_flight=1, waiting=3, leaving=2)], Plan(hold=("a",))),
    "(2) on its way": ([Standing(name="a", state="starting", waiting=1)], Plan()),
    "(3) failed too often": ([stopped("a", waiting=1, retry_at=150.0)], Plan(wake_at=150.0)),
    "(4) room": ([stopped("a", waiting=1)], Plan(start=("a",))),
    "(4) room for one: the longest wait first": (
        [ready("x", in_flight=1), stopped("a", waiting=9), stopped("b", waiting=2)],
        Plan(start=("b",), hold=("x",)),
    ),
    "(5) a place is being vacated": (
        [ready("x"), Standing(name="y", state="stopping"), stopped("a", waiting=1)],
        Plan(),
    ),
    "(6) the idle one, though it expires later": (
        [ready("x", in_flight=1, expires_at=200.0), ready("y", expires_at=900.0), stopped("a", waiting=1)],
        Plan(stop=("y",)),
    ),
    "(6) the idle one that expires first": (
        [ready("x", expires_at=200.0), ready("y", expires_at=900.0), stopped("a", waiting=1)],
        Plan(stop=("x",), wake_at=900.0),
    ),
    "(6) all busy: hold one, serve who came before": (
        [ready("x", in_flight=1, waiting=1), ready("y", in_flight=2), stopped("a", waiting=2)],
        Plan(serve=("x",), hold=("x",)),
    ),
    "(7) died: started again": ([failed("a", revive_at=100.0)], Plan(start=("a",))),
    "(7) died: not yet": ([failed("a", revive_at=130.0)], Plan(wake_at=130.0)),
    "(7) died, and would have expired": (
        [failed("a", revive_at=100.0, expires_at=100.0)],
        Plan(forget=("a",)),
    ),
    "(7) died, and there is no room": (
        [ready("x"), ready("y"), failed("a", revive_at=90.0)],
        Plan(),
    ),
    "(7) died, and somebody waits for the last room": (
        [ready("x"), failed("a", revive_at=90.0), stopped("b", waiting=1)],
        Plan(start=("b",)),
    ),
    "expired": (
        [ready("x", expires_at=99.0), ready("y", expires_at=101.0)],
        Plan(stop=("x",), wake_at=101.0),
    ),
    "expired but busy": ([ready("x", expires_at=99.0, in_flight=1)], Plan()),
    "(6) young ones stay until they have been used": (
        [ready("x", stays_until=105.0), ready("y", in_flight=1), stopped("a", waiting=1)],
        Plan(wake_at=105.0),
    ),
    "(6) held for too long: cut": (
        [ready("x", in_flight=1, cut_at=100.0), ready("y", in_flight=1), stopped("a", waiting=1)],
        Plan(cut=("x",)),
    ),
    "(6) held, and not yet for too long": (
        [ready("x", in_flight=1, cut_at=130.0), ready("y", in_flight=1), stopped("a", waiting=1)],
        Plan(hold=("x",), wake_at=130.0),
    ),
    "(8) leaving without anybody waiting: it has all the time": (
        [ready("x", in_flight=1, leaving=1, cut_at=90.0)],
        Plan(hold=("x",)),
    ),
    "(8) idle: to sleep": (
        [ready("x", nap_at=99.0, deepest=2, expires_at=300.0)],
        Plan(sleep=(("x", 1),), wake_at=300.0),
    ),
    "(8) asleep: deeper": (
        [Standing(name="x", state="sleeping", level=1, deepest=2, nap_at=100.0)],
        Plan(sleep=(("x", 2),)),
    ),
    "(8) as deep as it can": (
        [Standing(name="x", state="sleeping", level=2, deepest=2, nap_at=99.0, expires_at=500.0)],
        Plan(wake_at=500.0),
    ),
    "(8) asleep and expired": (
        [Standing(name="x", state="sleeping", level=1, deepest=2, expires_at=100.0)],
        Plan(stop=("x",)),
    ),
    "asleep, and wanted with other settings": (
        [Standing(name="x", state="sleeping", level=1, waiting=3, leaving=3)],
        Plan(stop=("x",)),
    ),
    "(8) asleep: deeper takes a place for a moment": (
        [
            Standing(name="x", state="sleeping", level=1, deepest=2, nap_at=100.0, device="gpu"),
            ready("y"),
            ready("z"),
        ],
        Plan(),
    ),
    "(6) another copy of it does not give way": (
        [ready("x", in_flight=1), ready("y", in_flight=1), stopped("x#2", copy_of="x", waiting=1)],
        Plan(hold=("y",)),
    ),
    "(6) ... nor the first for a copy, nor copies for each other: it is refused": (
        [ready("x"), ready("x#2", copy_of="x", in_flight=1), stopped("x#3", copy_of="x", waiting=1)],
        Plan(refuse=("x#3",)),
    ),
    "(6) ... nor a copy for the first": (
        [ready("x#3", copy_of="x"), ready("x#2", copy_of="x"), stopped("x", waiting=1)],
        Plan(refuse=("x",)),
    ),
    "(6) the other copy leaves anyway: wait for it": (
        [
            ready("x", in_flight=1, leaving=1),
            ready("x#3", copy_of="x"),
            stopped("x#2", copy_of="x", waiting=2),
        ],
        Plan(hold=("x",)),
    ),
    "elsewhere: no room needed": (
        [ready("x"), ready("y"), stopped("a", waiting=1, occupies=False)],
        Plan(start=("a",)),
    ),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_decide(case: str) -> None:
    standings, plan = DECISIONS[case]
    assert decide(standings, max_loaded=2, now=100.0) == plan


# ---- memory


def gpu(name: str, state: str = "ready", **more: Any) -> Standing:
    return Standing(**{"name": name, "state": state, "device": "gpu", "needs": 60, **more})


MEMORY = {
    "it fits beside another": (
        [gpu("x"), gpu("a", "stopped", waiting=1, needs=30)],
        {"0": 40},
        Plan(start=("a",), gpus={"a": ("0",)}),
    ),
    "it does not fit: the idle one gives way": (
        [gpu("x", expires_at=500.0), gpu("a", "stopped", waiting=1)],
        {"0": 40},
        Plan(stop=("x",)),
    ),
    "as many give way as are needed": (
        [gpu("x", needs=30), gpu("y", needs=30), gpu("z", needs=30), gpu("a", "stopped", waiting=1)],
        {"0": 10},
        Plan(stop=("x", "y")),
    ),
    "memory of the host is no use on a GPU": (
        [ready("x", needs=60), gpu("a", "stopped", waiting=1)],
        {"0": 60, "host": 0},
        Plan(start=("a",), gpus={"a": ("0",)}),
    ),
    "it can sleep: it need not be stopped": (
        [gpu("x", deepest=2), gpu("a", "stopped", waiting=1)],
        {"0": 40, "host": 100},
        Plan(sleep=(("x", 1),)),
    ),
    "no room for its weights in the host: it sleeps deeper": (
        [gpu("x", deepest=2), gpu("a", "stopped", waiting=1)],
        {"0": 40, "host": 10},
        Plan(sleep=(("x", 2),)),
    ),
    "asleep, and there is room: wake": (
        [gpu("x", "sleeping", level=1, deepest=2, waiting=1)],
        {"0": 60},
        Plan(wake=("x",)),
    ),
    "asleep, and there is none: another gives way": (
        [gpu("x", "sleeping", level=1, deepest=2, waiting=1), gpu("y")],
        {"0": 10},
        Plan(stop=("y",)),
    ),
    "what a start will take is not free": (
        [gpu("x", "starting"), gpu("a", "stopped", waiting=1, needs=30)],
        {"0": 80},
        Plan(),
    ),
    "two at once, if both fit": (
        [gpu("a", "stopped", waiting=1, needs=30), gpu("b", "stopped", waiting=2, needs=30)],
        {"0": 60},
        Plan(start=("a", "b"), gpus={"a": ("0",), "b": ("0",)}),
    ),
    "who came later does not take what the first waits for": (
        [
            gpu("x", in_flight=1),
            gpu("a", "stopped", waiting=1, needs=80),
            gpu("b", "stopped", waiting=2, needs=30),
        ],
        {"0": 40},
        Plan(hold=("x",)),
    ),
    "alone on its device it is started whatever is known": (
        [gpu("a", "stopped", waiting=1, needs=500)],
        {"0": 100},
        Plan(start=("a",), gpus={"a": ("0",)}),
    ),
    "it ran out of memory beside another: without that one, and no other": (
        [
            gpu("x", needs=10),
            gpu("y", needs=10),
            gpu("a", "failed", waiting=1, needs=10, without=frozenset({"x"})),
        ],
        {"0": 90},
        Plan(stop=("x",)),
    ),
    "... which is gone": (
        [gpu("y", needs=10), gpu("a", "failed", waiting=1, needs=10, without=frozenset({"x"}))],
        {"0": 90},
        Plan(start=("a",), gpus={"a": ("0",)}),
    ),
    "... and is busy: held": (
        [gpu("x", in_flight=1), gpu("a", "failed", waiting=1, needs=10, without=frozenset({"x"}))],
        {"0": 90},
        Plan(hold=("x",)),
    ),
    "asleep, and deeper would wake it into memory that another has": (
        [gpu("x", "sleeping", level=1, deepest=2, nap_at=99.0, needs=70), gpu("y", in_flight=1)],
        {"0": 5},
        Plan(),
    ),
    "... that others begin to take": (
        [
            gpu("x", "sleeping", level=1, deepest=2, nap_at=99.0),
            gpu("a", "stopped", waiting=1),
        ],
        {"0": 100},
        Plan(start=("a",), gpus={"a": ("0",)}),
    ),
    "... of which nobody knows how much there is": (
        [gpu("x", "sleeping", level=1, deepest=2, nap_at=99.0), gpu("y", in_flight=1)],
        {},
        Plan(),
    ),
    "... and there is enough: one after the other": (
        [
            gpu("x", "sleeping", level=1, deepest=2, nap_at=99.0),
            gpu("y", "sleeping", level=1, deepest=2, nap_at=99.0),
        ],
        {"0": 100},
        Plan(sleep=(("x", 2),)),
    ),
    "what one that sleeps deeper takes on its way is not free": (
        [gpu("x", "dozing", level=1, deepest=2), gpu("a", "stopped", waiting=1, needs=50)],
        {"0": 100},
        Plan(),
    ),
    "a copy does not fit beside the other one": (
        [gpu("x", in_flight=1), gpu("x#2", "stopped", copy_of="x", waiting=1)],
        {"0": 40},
        Plan(refuse=("x#2",)),
    ),
    "... and it helps nobody that a third goes": (
        [gpu("x"), gpu("y", needs=10), gpu("x#2", "stopped", copy_of="x", waiting=1)],
        {"0": 40},
        Plan(refuse=("x#2",)),
    ),
    "... unless that has enough": (
        [gpu("x", needs=40), gpu("y"), gpu("x#2", "stopped", copy_of="x", waiting=1, needs=40)],
        {"0": 0},
        Plan(stop=("y",)),
    ),
    "... or nobody knows how much": (
        [gpu("x", needs=40), gpu("y", needs=0), gpu("x#2", "stopped", copy_of="x", waiting=1, needs=40)],
        {"0": 0},
        Plan(stop=("y",)),
    ),
    "... while the other one starts, nobody knows": (
        [gpu("x", "starting"), gpu("x#2", "stopped", copy_of="x", waiting=1)],
        {"0": 100},
        Plan(),
    ),
    "nothing known: it is tried": (
        [gpu("x", needs=0), gpu("a", "stopped", waiting=1, needs=0)],
        {},
        Plan(start=("a",)),
    ),
}


@pytest.mark.parametrize("case", MEMORY)
def test_memory(case: str) -> None:
    standings, free, plan = MEMORY[case]
    assert decide(standings, max_loaded=0, now=100.0, free=free) == plan


# ---- several GPUs, each an account of its own


def on(*gpus: str, **more: Any) -> Standing:
    return gpu(**{"name": "x" + "".join(gpus), "gpus": frozenset(gpus), **more})


def wanted(name: str = "a", **more: Any) -> Standing:
    return gpu(name, "stopped", **{"waiting": 1, **more})


SEVERAL = {
    "four with 20 each are no room for 70 on one": (
        [*(on(str(at), expires_at=900.0 - at) for at in range(4)), wanted(needs=70)],
        {"0": 20, "1": 20, "2": 20, "3": 20},
        Plan(stop=("x3",), wake_at=898.0),
    ),
    "... and only that one waits for it": (
        [on("0", state="stopping", needs=60), on("1", needs=10), wanted(needs=70)],
        {"0": 20, "1": 50},
        Plan(),
    ),
    "the one with the most free memory": (
        [wanted(needs=20)],
        {"0": 20, "1": 80, "2": 40},
        Plan(start=("a",), gpus={"a": ("1",)}),
    ),
    "two that start at once do not count on the same": (
        [wanted(needs=60), wanted("b", waiting=2, needs=60), wanted("c", waiting=3, needs=20)],
        {"0": 80, "1": 70},
        Plan(start=("a", "b", "c"), gpus={"a": ("0",), "b": ("1",), "c": ("0",)}),
    ),
    "one in parts needs its share on each": (
        [on("0"), wanted(needs=40, count=2)],
        {"0": 20, "1": 80, "2": 60},
        Plan(start=("a",), gpus={"a": ("1", "2")}),
    ),
    "... and who is on one of them gives way": (
        [on("0"), wanted(needs=40, count=2)],
        {"0": 20, "1": 80},
        Plan(stop=("x0",)),
    ),
    "... all who are": (
        [
            on("0"),
            on("1", needs=50),
            on("2", expires_at=50.0, needs=20, in_flight=1),
            wanted(needs=40, count=2),
        ],
        {"0": 20, "1": 30, "2": 30},
        Plan(stop=("x0", "x1")),
    ),
    "... a model of several GPUs gives way on all": (
        [on("0", "1", needs=70), wanted(needs=60, count=2)],
        {"0": 10, "1": 10},
        Plan(stop=("x01",)),
    ),
    "there are fewer than it needs: its engine says so": (
        [wanted(needs=40, count=4)],
        {"0": 80, "1": 80},
        Plan(start=("a",), gpus={"a": ("0", "1")}),
    ),
    "the idle one gives way, on whichever GPU": (
        [on("0", in_flight=1, expires_at=101.0), on("1", expires_at=900.0), wanted()],
        {"0": 20, "1": 20},
        Plan(stop=("x1",)),
    ),
    "a busy one, before one that is only starting": (
        [on("0", state="starting"), on("1", in_flight=1), wanted()],
        {"0": 80, "1": 20},
        Plan(hold=("x1",)),
    ),
    "nobody gives way where that would be too little": (
        [on("0", needs=10), on("1", needs=60, expires_at=900.0), wanted(needs=70)],
        {"0": 20, "1": 20},
        Plan(stop=("x1",)),
    ),
    "too little everywhere: where it will be the most": (
        [on("0", needs=10), on("1", needs=60, in_flight=1), wanted(needs=100)],
        {"0": 20, "1": 20},
        Plan(hold=("x1",)),
    ),
    "... and there it is started when it is alone": (
        [on("0", needs=10), wanted(needs=100)],
        {"0": 20, "1": 80},
        Plan(start=("a",), gpus={"a": ("1",)}),
    ),
    "who came later may have another GPU than the one that is waited for": (
        [
            on("0", in_flight=1),
            on("1", in_flight=1, needs=70),
            wanted(needs=70),
            wanted("b", waiting=2, needs=10),
        ],
        {"0": 20, "1": 10},
        Plan(hold=("x0",), start=("b",), gpus={"b": ("1",)}),
    ),
    "it ran out of memory beside another: where that one is not": (
        [on("0", needs=10), wanted(needs=10, without=frozenset({"x0"}))],
        {"0": 70, "1": 20},
        Plan(start=("a",), gpus={"a": ("1",)}),
    ),
    "a second copy on another GPU": (
        [on("0", name="x"), wanted("x#2", copy_of="x")],
        {"0": 20, "1": 80},
        Plan(start=("x#2",), gpus={"x#2": ("1",)}),
    ),
    "... and a third that has none: refused": (
        [on("0", name="x"), on("1", name="x#2", copy_of="x"), wanted("x#3", copy_of="x")],
        {"0": 20, "1": 20},
        Plan(refuse=("x#3",)),
    ),
    "... though one has no model of ours: others take too much there": (
        [on("0", name="x"), wanted("x#2", copy_of="x")],
        {"0": 20, "1": 50},
        Plan(refuse=("x#2",)),
    ),
    "what sleeps wakes where it is": (
        [on("0", name="x", state="sleeping", level=1, deepest=2, waiting=1), on("0", name="y")],
        {"0": 20, "1": 80},
        Plan(stop=("y",)),
    ),
    "... and sleeps deeper though another GPU is full": (
        [on("0", state="sleeping", level=1, deepest=2, nap_at=99.0), on("1", in_flight=1)],
        {"0": 80, "1": 0},
        Plan(sleep=(("x0", 2),)),
    ),
    "GPUs that differ: of each it takes another part": (
        [on("1", needs=20), wanted(needs=72, by_gpu={"0": 21, "1": 72})],
        {"0": 23, "1": 60},
        Plan(start=("a",), gpus={"a": ("0",)}),
    ),
    "nobody knows on which it is: it counts on each": (
        [gpu("x", state="starting", needs=60), wanted(needs=30)],
        {"0": 80, "1": 80},
        Plan(),
    ),
    "on one that is not there any more": (
        [on("7"), wanted()],
        {"0": 20},
        Plan(stop=("x7",)),
    ),
    "the host's memory is none of theirs": (
        [on("0"), ready("y", needs=60), stopped("a", waiting=1, needs=60)],
        {"0": 80, "host": 20},
        Plan(stop=("y",)),
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_gpus(case: str) -> None:
    standings, free, plan = SEVERAL[case]
    assert decide(standings, max_loaded=0, now=100.0, free=free) == plan


# ---- laws


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Standing], dict[str, int]]:
    """Machines of up to four GPUs of 100 bytes, with models that fit on them, and some that wait."""
    names = draw(st.sampled_from(["0", "01", "012", "0123"]))
    free = dict.fromkeys(names, 100)
    left = dict(free)
    standings = []
    for number in range(draw(st.integers(0, 5))):
        count, needs = draw(st.integers(1, 2)), draw(st.sampled_from([10, 30, 60, 90]))
        places = sorted((gpu for gpu in names if left[gpu] >= needs), key=lambda gpu: -left[gpu])[:count]
        if len(places) < count:
            continue
        state = draw(st.sampled_from(["ready", "ready", "ready", "starting", "stopping", "sleeping"]))
        if state != "sleeping":
            left |= {gpu: left[gpu] - needs for gpu in places}
        if state in ("ready", "stopping"):
            free |= {gpu: free[gpu] - needs for gpu in places}
        standings.append(
            on(
                *places,
                name=f"x{number}",
                state=state,
                needs=needs,
                count=count,
                in_flight=draw(st.integers(0, 1)) if state == "ready" else 0,
                deepest=2 if state == "sleeping" else 0,
                level=1 if state == "sleeping" else 0,
                waiting=draw(st.sampled_from([None, 50 + number])) if state == "sleeping" else None,
                expires_at=200.0 + number,
            )
        )
    for number in range(draw(st.integers(1, 3))):
        needs, count = draw(st.sampled_from([10, 40, 70, 100])), draw(st.integers(1, len(names)))
        standings.append(wanted(f"w{number}", waiting=number, needs=needs, count=count))
    return standings, free


@given(situations())
def test_no_gpu_is_given_more_than_it_has(situation: tuple[list[Standing], dict[str, int]]) -> None:
    standings, free = situation
    plan = decide(standings, max_loaded=0, now=100.0, free=free)
    left = dict(free)
    for one in standings:
        if one.state == "starting" or one.name in plan.wake:
            left |= {gpu: left[gpu] - one.needs for gpu in one.gpus}
        if one.name in plan.start:
            assert len(plan.gpus[one.name]) == one.count
            left |= {gpu: left[gpu] - one.needs for gpu in plan.gpus[one.name]}
    assert min(left.values()) >= 0, plan


@given(situations())
def test_the_first_who_waits_gets_on(situation: tuple[list[Standing], dict[str, int]]) -> None:
    """It is started, or somebody leaves or is held for it, or it waits for what is on its way."""
    standings, free = situation
    plan = decide(standings, max_loaded=0, now=100.0, free=free)
    coming = [one for one in standings if one.state in ("starting", "stopping")]
    assert "w0" in plan.start or plan.stop or plan.hold or coming, plan
