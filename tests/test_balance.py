"""Which replica a request goes to: the choice as values, and what is remembered of load and failures."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from portico.engines.balance import (
    FAILURES,
    FAR,
    REST_SECONDS,
    START,
    Balance,
    Candidate,
    beginning,
    choose,
    weight,
)

KEY = b"a conversation"


def candidate(name: str, outstanding: int = 0, **more: object) -> Candidate:
    return Candidate(name=name, outstanding=outstanding, **more)  # type: ignore[arg-type]


def chosen(*candidates: Candidate, key: bytes = KEY) -> str:
    return choose(candidates, key, draw=lambda some: max(some, key=lambda one: one.outstanding)).name


HOME = chosen(candidate("a"), candidate("b"), candidate("c"))
OTHERS = sorted({"a", "b", "c"} - {HOME})


def test_the_same_beginning_goes_to_the_same_replica() -> None:
    assert {chosen(candidate("c"), candidate("a"), candidate("b")) for _ in range(20)} == {HOME}


def test_other_beginnings_are_spread() -> None:
    found = [chosen(candidate("a"), candidate("b"), key=str(at).encode()) for at in range(400)]
    assert 150 < found.count("a") < 250


def test_a_replica_that_goes_takes_only_its_own_along() -> None:
    keys = [str(at).encode() for at in range(200)]
    before = [chosen(*map(candidate, "abc"), key=key) for key in keys]
    after = [chosen(*map(candidate, "ab"), key=key) for key in keys]
    assert all(now == then for now, then in zip(after, before, strict=True) if then != "c")


def test_a_little_more_load_does_not_drive_a_conversation_from_its_cache() -> None:
    busy = [candidate(name, FAR if name == HOME else 0) for name in "abc"]
    assert chosen(*busy) == HOME


def test_far_too_much_does() -> None:
    busy = [candidate(name, FAR + 1 if name == HOME else 0) for name in "abc"]
    assert choose(busy, KEY, draw=lambda some: min(some, key=lambda one: one.outstanding)).name in OTHERS


def test_of_two_that_are_drawn_the_less_loaded() -> None:
    loads = {HOME: 10 * FAR, OTHERS[0]: 5, OTHERS[1]: 0}
    drawn = iter([candidate(HOME, loads[HOME]), candidate(OTHERS[0], 5)])
    found = choose([candidate(name, loads[name]) for name in "abc"], KEY, draw=lambda some: next(drawn))
    assert found.name == OTHERS[0]


@pytest.mark.parametrize(
    ("candidates", "wanted"),
    [
        ([candidate("a", tried=1), candidate("b", 10**9)], "b"),
        ([candidate("a", resting=True), candidate("b", 10**9)], "b"),
        ([candidate("a", ready=False), candidate("b", START)], "b"),
        ([candidate("a", ready=False), candidate("b", START + 1)], "a"),
        ([candidate("a", START, ready=False), candidate("b", 2 * START)], "b"),
        ([candidate("a", resting=True, ready=False), candidate("b", 10**9)], "b"),
        ([candidate("a", ready=False), candidate("b", tried=1)], "a"),
        ([candidate("a", resting=True), candidate("b", tried=1)], "a"),
        ([candidate("a", resting=True, ready=False), candidate("b", resting=True)], "b"),
        ([candidate("a", tried=1)], "a"),
    ],
    ids=[
        "not tried",
        "not resting",
        "ready",
        "unless it has far too much to do",
        "and the other has not nearly so much",
        "one that is not ready is left alone while it rests",
        "tried is worse than not ready",
        "and than resting",
        "all rest",
        "all",
    ],
)
def test_who_comes_first(candidates: list[Candidate], wanted: str) -> None:
    assert chosen(*candidates) == wanted


@given(
    st.lists(
        st.builds(
            Candidate,
            name=st.sampled_from("abcdef"),
            outstanding=st.integers(0, 10**6),
            ready=st.booleans(),
            resting=st.booleans(),
            tried=st.integers(0, 2),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda one: one.name,
    ),
    st.binary(max_size=20),
)
def test_somebody_is_always_chosen_and_never_one_that_failed_more(
    candidates: list[Candidate], key: bytes
) -> None:
    found = choose(candidates, key, draw=lambda some: some[0])
    assert found in candidates
    assert found.tried == min(one.tried for one in candidates)


def test_a_replica_that_was_unloaded_is_used_again_when_there_is_much_to_do() -> None:
    """Both were unloaded over night; the first request has loaded one of them."""
    balance, names = Balance(), ("m", "m#2")
    found = []
    for at in range(1000):
        name = balance.choose(names, str(at).encode(), tried=(), is_ready=lambda name: name == "m")
        balance.began(name, 1000)
        found.append(name)
    assert set(found[:20]) == {"m"}, "a start is not worth a few requests"
    assert abs(balance.outstanding("m") - balance.outstanding("m#2") - START) <= 2000


# ---- what is remembered


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.balance = Balance(clock=lambda: self.now, draw=lambda some: some[0])

    def request(self, name: str, *, failed: bool) -> None:
        self.balance.began(name, 10)
        self.balance.ended(name, 10, failed=failed)


def test_a_replica_that_fails_again_and_again_gets_a_rest_and_then_one_trial() -> None:
    world = World()
    for at in range(FAILURES):
        assert not world.balance.rests("a"), at
        world.request("a", failed=True)
    assert world.balance.rests("a")
    world.now = REST_SECONDS + 0.1
    assert not world.balance.rests("a"), "one may try"
    world.balance.began("a", 10)
    assert world.balance.rests("a"), "the others wait for how that ends"
    world.balance.ended("a", 10, failed=True)
    assert world.balance.rests("a")
    world.now *= 2
    world.request("a", failed=False)
    assert not world.balance.rests("a")
    world.request("a", failed=True)
    assert not world.balance.rests("a"), "the count began anew"


def test_successes_between_failures_are_no_row() -> None:
    world = World()
    for _ in range(3 * FAILURES):
        world.request("a", failed=True)
        world.request("a", failed=False)
    assert not world.balance.rests("a")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 999)), max_size=30))
def test_what_was_begun_and_ended_leaves_nothing_outstanding(requests: list[tuple[str, int]]) -> None:
    balance = Balance()
    for name, tokens in requests:
        balance.began(name, tokens)
    assert balance.outstanding("a") == sum(tokens for name, tokens in requests if name == "a")
    for name, tokens in requests:
        balance.ended(name, tokens, failed=False)
    assert balance.outstanding("a") == balance.outstanding("b") == 0


def test_the_beginning_of_a_conversation_is_the_same_in_all_its_turns() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "And now?"},
    ]
    first = beginning(json.dumps({"model": "m", "messages": turns[:2], "stream": True}).encode())
    assert first == beginning(json.dumps({"messages": turns, "max_tokens": 9}).encode()) != b""
    other = [turns[0], {"role": "user", "content": "Good day"}]
    assert first != beginning(json.dumps({"messages": other}).encode()), (
        "the same instructions are not enough"
    )


def test_the_beginning_of_a_completion_is_its_prompt() -> None:
    assert beginning(b'{"stream":true,"prompt":"Once"}') == b'"Once"'
    assert beginning(b"{}") == b"" and beginning(b"[") == b"["


def test_a_weight_grows_with_what_is_read_and_made() -> None:
    assert weight(b"x" * 400, 50) == 150
    assert weight(b"x" * 400, None) > weight(b"x" * 400, 50)
