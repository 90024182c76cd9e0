"""What the supervisor decides, as values: one case for each branch of the decision tree."""

from __future__ import annotations

from typing import Any

import pytest

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
        {"gpu": 40},
        Plan(start=("a",)),
    ),
    "it does not fit: the idle one gives way": (
        [gpu("x", expires_at=500.0), gpu("a", "stopped", waiting=1)],
        {"gpu": 40},
        Plan(stop=("x",)),
    ),
    "as many give way as are needed": (
        [gpu("x", needs=30), gpu("y", needs=30), gpu("z", needs=30), gpu("a", "stopped", waiting=1)],
        {"gpu": 10},
        Plan(stop=("x", "y")),
    ),
    "memory of the host is no use on a GPU": (
        [ready("x", needs=60), gpu("a", "stopped", waiting=1)],
        {"gpu": 60, "host": 0},
        Plan(start=("a",)),
    ),
    "it can sleep: it need not be stopped": (
        [gpu("x", deepest=2), gpu("a", "stopped", waiting=1)],
        {"gpu": 40, "host": 100},
        Plan(sleep=(("x", 1),)),
    ),
    "no room for its weights in the host: it sleeps deeper": (
        [gpu("x", deepest=2), gpu("a", "stopped", waiting=1)],
        {"gpu": 40, "host": 10},
        Plan(sleep=(("x", 2),)),
    ),
    "asleep, and there is room: wake": (
        [gpu("x", "sleeping", level=1, deepest=2, waiting=1)],
        {"gpu": 60},
        Plan(wake=("x",)),
    ),
    "asleep, and there is none: another gives way": (
        [gpu("x", "sleeping", level=1, deepest=2, waiting=1), gpu("y")],
        {"gpu": 10},
        Plan(stop=("y",)),
    ),
    "what a start will take is not free": (
        [gpu("x", "starting"), gpu("a", "stopped", waiting=1, needs=30)],
        {"gpu": 80},
        Plan(),
    ),
    "two at once, if both fit": (
        [gpu("a", "stopped", waiting=1, needs=30), gpu("b", "stopped", waiting=2, needs=30)],
        {"gpu": 60},
        Plan(start=("a", "b")),
    ),
    "who came later does not take what the first waits for": (
        [
            gpu("x", in_flight=1),
            gpu("a", "stopped", waiting=1, needs=80),
            gpu("b", "stopped", waiting=2, needs=30),
        ],
        {"gpu": 40},
        Plan(hold=("x",)),
    ),
    "alone on its device it is started whatever is known": (
        [gpu("a", "stopped", waiting=1, needs=500)],
        {"gpu": 100},
        Plan(start=("a",)),
    ),
    "it ran out of memory beside another: without that one, and no other": (
        [
            gpu("x", needs=10),
            gpu("y", needs=10),
            gpu("a", "failed", waiting=1, needs=10, without=frozenset({"x"})),
        ],
        {"gpu": 90},
        Plan(stop=("x",)),
    ),
    "... which is gone": (
        [gpu("y", needs=10), gpu("a", "failed", waiting=1, needs=10, without=frozenset({"x"}))],
        {"gpu": 90},
        Plan(start=("a",)),
    ),
    "... and is busy: held": (
        [gpu("x", in_flight=1), gpu("a", "failed", waiting=1, needs=10, without=frozenset({"x"}))],
        {"gpu": 90},
        Plan(hold=("x",)),
    ),
    "asleep, and deeper would wake it into memory that another has": (
        [gpu("x", "sleeping", level=1, deepest=2, nap_at=99.0, needs=70), gpu("y", in_flight=1)],
        {"gpu": 5},
        Plan(),
    ),
    "... that others begin to take": (
        [
            gpu("x", "sleeping", level=1, deepest=2, nap_at=99.0),
            gpu("a", "stopped", waiting=1),
        ],
        {"gpu": 100},
        Plan(start=("a",)),
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
        {"gpu": 100},
        Plan(sleep=(("x", 2),)),
    ),
    "what one that sleeps deeper takes on its way is not free": (
        [gpu("x", "dozing", level=1, deepest=2), gpu("a", "stopped", waiting=1, needs=50)],
        {"gpu": 100},
        Plan(),
    ),
    "a copy does not fit beside the other one": (
        [gpu("x", in_flight=1), gpu("x#2", "stopped", copy_of="x", waiting=1)],
        {"gpu": 40},
        Plan(refuse=("x#2",)),
    ),
    "... and it helps nobody that a third goes": (
        [gpu("x"), gpu("y", needs=10), gpu("x#2", "stopped", copy_of="x", waiting=1)],
        {"gpu": 40},
        Plan(refuse=("x#2",)),
    ),
    "... unless that has enough": (
        [gpu("x", needs=40), gpu("y"), gpu("x#2", "stopped", copy_of="x", waiting=1, needs=40)],
        {"gpu": 0},
        Plan(stop=("y",)),
    ),
    "... or nobody knows how much": (
        [gpu("x", needs=40), gpu("y", needs=0), gpu("x#2", "stopped", copy_of="x", waiting=1, needs=40)],
        {"gpu": 0},
        Plan(stop=("y",)),
    ),
    "... while the other one starts, nobody knows": (
        [gpu("x", "starting"), gpu("x#2", "stopped", copy_of="x", waiting=1)],
        {"gpu": 100},
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
