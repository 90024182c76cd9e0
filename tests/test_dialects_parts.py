"""What the dialects share: bodies, ids of calls, images, assembling."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.dialects import body as bodies
from portico.dialects import images
from portico.dialects.assemble import Assembler
from portico.dialects.calls import CallIds, new_id
from portico.errors import InvalidRequest
from portico.messages import (
    Choice,
    Finished,
    ReasoningDelta,
    Result,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    Used,
)

scalars = st.none() | st.booleans() | st.integers() | st.text()


@given(st.dictionaries(st.text(), scalars), st.sampled_from([None, 2]), st.booleans())
def test_fields_are_the_top_level_however_it_is_written(
    sent: dict[str, Any], indent: int | None, escape: bool
) -> None:
    body = json.dumps(sent, indent=indent, ensure_ascii=escape).encode()
    found = bodies.fields(body)
    assert {name: bodies.value(raw, name) for name, raw in found.items()} == sent


@given(
    st.dictionaries(st.text(), scalars, min_size=1), st.data(), st.sampled_from([(",", ":"), (", ", ": ")])
)
def test_a_name_given_twice_is_always_seen(
    sent: dict[str, Any], data: st.DataObject, separators: tuple[str, str]
) -> None:
    name = data.draw(st.sampled_from(sorted(sent)))
    body = json.dumps(sent, separators=separators)[:-1] + separators[0] + json.dumps(name) + ":1}"
    with pytest.raises(InvalidRequest, match="given twice"):
        bodies.fields(body.encode())


def test_names_given_twice_further_in_are_left_alone() -> None:
    assert set(bodies.fields(b'{"a": {"b": 1, "b": 2}}')) == {"a"}


def test_a_values_own_names_win_over_extra_ones() -> None:
    class Shape(msgspec.Struct, omit_defaults=True):
        model: str
        n: int | None = None

    assert bodies.encode(Shape(model="m"), {"model": "x", "n": 2}) == b'{"n":2,"model":"m"}'
    assert bodies.encode(Shape(model="m"), {"model": "x"}) == b'{"model":"m"}'


def test_what_cannot_be_written_is_an_invalid_request() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for value in ({"a": deep}, {"a": "\ud800"}):
        with pytest.raises(InvalidRequest):
            bodies.encode(value)
    while isinstance(deep, list):  # or taking it apart would recurse
        deep = deep[0]


@pytest.mark.parametrize(
    ("number", "read"), [(None, None), (3, 3), (3.0, 3), (2**40, 2**31 - 1), (1e300, 2**31 - 1)]
)
def test_numbers_that_are_whole(number: Any, read: int | None) -> None:
    assert bodies.whole(number, "n") == read


def test_ids_are_as_ollama_writes_them() -> None:
    assert len({new_id() for _ in range(100)}) == 100
    assert all(
        len(id) == 13 and id.startswith("call_") and id[5:].isalnum() and id.islower() for id in (new_id(),)
    )


def test_a_result_by_name_is_not_given_another_tools_call() -> None:
    ids = CallIds()
    first, second = ids.call("", "f"), ids.call("", "g")
    assert ids.result("", "g") == (second, "g")
    assert ids.result("", "renamed") == (first, "renamed")
    assert ids.result("", "f") == ("call_00000003", "f")


def test_files_of_the_server_never_pass_as_images() -> None:
    for links in (True, False):
        with pytest.raises(InvalidRequest):
            images.url("file:///etc/passwd", "images[0]", links=links)


def test_assembling() -> None:
    assembler = Assembler()
    assert assembler.result() == Result(choices=())
    for event in (
        TextDelta(text="b", index=1),
        ReasoningDelta(text="h"),
        ReasoningDelta(text="m"),
        TextDelta(text="a"),
        ToolCallDelta(call=1, id="c2", name="g"),
        ToolCallDelta(call=0, id="c1", name="f", arguments="{"),
        ToolCallDelta(call=0, arguments="}"),
        Finished(finish_reason="tool_calls"),
        Used(usage=Usage(input_tokens=1)),
    ):
        assembler.add(event)
    calls = (ToolCall(id="c1", name="f", arguments="{}"), ToolCall(id="c2", name="g", arguments=""))
    first = Choice(text="a", reasoning="hm", tool_calls=calls, finish_reason="tool_calls")
    assert assembler.result() == Result(
        choices=(first, Choice(index=1, text="b")), usage=Usage(input_tokens=1)
    )
