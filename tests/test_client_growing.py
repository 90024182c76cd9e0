"""Objects that are streamed: every value on the way is a prefix of the next, the last one is whole and checked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_server import LiveServer
from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.growing import NOTHING, Growing, Parsed
from portico.client.outputs import Choice
from portico.errors import WrongAnswer
from scripted_answers import CHAT, chat_stream
from scripted_upstream import ScriptedUpstream

TEXTS = st.text(max_size=8)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


def begins(part: Any, whole: Any) -> bool:
    """`part` is what somebody has written of `whole`, from its beginning."""
    if isinstance(whole, dict):
        if not isinstance(part, dict) or list(part) != list(whole)[: len(part)]:
            return False
        part, whole = list(part.values()), list(whole.values())
    if isinstance(whole, list):
        if not isinstance(part, list) or len(part) > len(whole):
            return False
        same = part[:-1] == whole[: max(0, len(part) - 1)]
        return same and (not part or begins(part[-1], whole[len(part) - 1]))
    if isinstance(whole, str):
        return isinstance(part, str) and whole.startswith(part)
    return type(part) is type(whole) and part == whole


def test_what_a_beginning_is() -> None:
    assert begins({"a": "x", "b": [1]}, {"a": "x", "b": [1, 2]})
    assert not begins([12], [123]) and not begins({"b": 1}, {"a": 1, "b": 1}) and not begins(True, 1)
    assert not begins([["a"], 1], [["b"], 1])


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_every_prefix_of_a_document_is_a_prefix_of_its_value(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    growing, last = Growing(wrapped=False), NOTHING
    for char in text:
        now = growing.add(char)
        if now is not NOTHING:
            assert begins(now, value), (now, value)
            assert last is NOTHING or begins(last, now)
            last = now
    if isinstance(value, list | dict | str):
        assert last == value


@given(VALUES, st.lists(st.integers(0, 40), max_size=8))
def test_however_it_is_cut(value: Any, cuts: list[int]) -> None:
    text = json.dumps({"value": value})
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    growing, last = Growing(wrapped=True), NOTHING
    for start, end in pairwise(places):
        now = growing.add(text[start:end])
        if now is not NOTHING:
            assert begins(now, value)
            last = now
    assert last == value


@dataclass
class Person:
    name: str
    companies: list[str]
    age: int


PIECES = ('{"name": "A', 'da", "comp', 'anies": ["On', 'e", "Two"], "age": 3', "6", "}")
STEPS = [
    {"name": "A"},
    {"name": "Ada"},
    {"name": "Ada", "companies": ["On"]},
    {"name": "Ada", "companies": ["One", "Two"]},
    {"name": "Ada", "companies": ["One", "Two"], "age": 36},
]


def streamed(url: str, kind: str, output: Any, **more: Any) -> tuple[list[Any], Any]:
    """The events of a stream, and its result."""
    if kind == "sync":
        with Client(url) as client, client.stream("Who?", output=output, **more) as events:
            return list(events), events.result

    async def run() -> tuple[list[Any], Any]:
        async with AsyncClient(url) as client, client.stream("Who?", output=output, **more) as events:
            return [event async for event in events], events.result

    return asyncio.run(run())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stream_tells_the_object_as_it_grows(upstream: ScriptedUpstream, kind: str) -> None:
    upstream.script(CHAT, chat_stream(*PIECES))
    events, result = streamed(upstream.url, kind, Person)
    values = [event for event in events if isinstance(event, Parsed)]
    assert [event.value for event in values if not event.whole] == STEPS
    assert values[-1].whole and values[-1].value == result.parsed == Person("Ada", ["One", "Two"], 36)
    assert "response_format" in upstream.last(CHAT)


def test_objects_alone(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, chat_stream('{"value": [1', ", 2", "]}"), chat_stream('{"value": [1', ", 2", "]}"))
    with Client(upstream.url) as client, client.stream("Which?", output=list[int]) as events:
        assert list(events.objects()) == [[], [1], [1, 2], [1, 2]]

    async def run() -> list[Any]:
        async with AsyncClient(upstream.url) as client, client.stream("?", output=list[int]) as events:
            return [value async for value in events.objects()]

    assert asyncio.run(run())[-1] == [1, 2]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("pieces", "finish", "says"),
    [
        (PIECES[:3], "length", "cut off"),
        (('{"name": 1, "companies": [], "age": 1}',), "stop", "name: "),
        (("Ada",), "stop", "no JSON"),
    ],
)
def test_one_that_is_not_as_it_should_be(
    upstream: ScriptedUpstream, kind: str, pieces: tuple[str, ...], finish: str, says: str
) -> None:
    upstream.script(CHAT, chat_stream(*pieces, finish=finish))
    with pytest.raises(WrongAnswer, match=says) as caught:
        streamed(upstream.url, kind, Person)
    assert caught.value.text == "".join(pieces) and caught.value.url


def test_a_choice_comes_at_the_end(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, chat_stream("re", "d"))
    events, result = streamed(upstream.url, "sync", Choice("red", "blue"))
    assert [event.value for event in events if isinstance(event, Parsed)] == [
        "red"
    ] and result.parsed == "red"


def test_on_the_embedded_engine(embedded: LiveServer) -> None:
    with (
        Client(embedded.url) as client,
        client.stream(
            "Extract name and age: Ada is 36 years old.",
            output={
                "type": "object",
                "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                "required": ["name", "age"],
            },
            temperature=0,
            max_tokens=64,
        ) as events,
    ):
        values = list(events.objects())
    assert all(begins(one, other) for one, other in pairwise(values))
    assert set(values[-1]) == {"name", "age"} and len(values) > 2
