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
    "elsewhere: no room needed": (
        [ready("x"), ready("y"), stopped("a", waiting=1, occupies=False)],
        Plan(start=("a",)),
    ),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_decide(case: str) -> None:
    standings, plan = DECISIONS[case]
    assert decide(standings, max_loaded=2, now=100.0) == plan
