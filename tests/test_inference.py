"""Decisions of the inference path with plain values, and streams joined and reshaped."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.dialects.assemble import Assembler
from portico.gateway.inference import (
    HERMES,
    as_prompt,
    assemble,
    call_schema,
    droppings,
    retold,
    surely_fits,
)
from portico.gateway.streams import Events, ForcedCall, Joined, Told
from portico.messages import (
    ChatRequest,
    Choice,
    Event,
    Finished,
    Logprob,
    Message,
    Result,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    Used,
)
from portico.web import Account

ROLES = st.sampled_from(["system", "user", "assistant", "tool"])


def said(role: str, text: str) -> Message:
    part = ToolResult(text=text) if role == "tool" else Text(text=text)
    return Message(role=role, parts=(part,))  # type: ignore[arg-type]


@given(st.lists(ROLES, min_size=1, max_size=12))
def test_dropping_keeps_system_messages_the_last_one_and_the_order(roles: list[str]) -> None:
    messages = [said(role, str(number)) for number, role in enumerate(roles)]
    found = list(droppings(messages))
    assert found[0] == tuple(messages)
    for smaller in found:
        assert smaller[-1] == messages[-1]
        kept = [message for message in messages if message in smaller]
        assert list(smaller) == kept
        assert [m for m in messages if m.role == "system"] == [m for m in smaller if m.role == "system"]
    assert all(len(a) > len(b) for a, b in itertools.pairwise(found))
    movable = [message for message in messages[:-1] if message.role != "system"]
    assert len(found[-1]) == len(messages) - len(movable)


def test_a_tools_result_goes_with_its_call() -> None:
    call = Message(role="assistant", parts=(ToolCall(id="1", name="f", arguments="{}"),))
    messages = [said("user", "a"), call, said("tool", "r"), said("user", "b")]
    assert [len(smaller) for smaller in droppings(messages)] == [4, 3, 1]


def test_a_conversation_as_plain_text() -> None:
    request = ChatRequest(
        model="m", messages=(said("system", "Be kind."), said("user", "Hi"), said("user", "there"))
    )
    completion = as_prompt(request)
    assert completion.prompts == ("System: Be kind.\n\nUser: Hi\n\nUser: there\n\nAssistant:",)
    assert completion.sampling.stop == ("\nUser:",)


class Later:
    """Gives its batches one by one, after letting others run."""

    def __init__(self, batches: Sequence[Sequence[Event]], error: Exception | None = None) -> None:
        self._batches, self._error = list(batches), error
        self.closed = False

    async def batch(self) -> Sequence[Event]:
        await asyncio.sleep(0)
        if self._batches:
            return self._batches.pop(0)
        if self._error is not None:
            raise self._error
        return ()

    def close(self) -> None:
        self.closed = True


def answer(text: str, tokens: int) -> list[list[Event]]:
    usage = Usage(input_tokens=5, output_tokens=tokens, cached_tokens=1)
    return [[TextDelta(text=letter)] for letter in text] + [
        [Finished(finish_reason="stop")],
        [Used(usage=usage)],
    ]


async def test_joined_streams_are_choices_with_one_usage() -> None:
    streams = [
        Later(answer("one", 3)),
        Later(answer("two", 4)),
        Later(answer("xyz", 5)),
        Later(answer("", 0)),
    ]

    def opener(stream: Later) -> object:
        async def open() -> Events:
            return stream

        return open

    joined = Joined([opener(stream) for stream in streams], per_prompt=2, at_once=4)  # type: ignore[misc]
    result = await assemble(joined, Account())
    assert [choice.text for choice in result.choices] == ["one", "two", "xyz", ""]
    assert [choice.index for choice in result.choices] == [0, 1, 2, 3]
    assert result.usage == Usage(input_tokens=10, output_tokens=12, cached_tokens=2)
    assert all(stream.closed for stream in streams)


async def test_one_broken_stream_ends_them_all() -> None:
    forever = asyncio.Event()

    class Endless(Later):
        async def batch(self) -> Sequence[Event]:
            await forever.wait()
            return ()

    endless, broken = Endless([]), Later([[TextDelta(text="a")]], ValueError("broken"))

    async def first() -> Events:
        return endless

    async def second() -> Events:
        return broken

    joined = Joined([first, second], per_prompt=1, at_once=2)
    assert await joined.batch() == [TextDelta(text="a", index=1)]
    with pytest.raises(ValueError, match="broken"):
        await joined.batch()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert endless.closed and broken.closed


async def forced(text: str, name: str | None, reason: str = "stop") -> list[Event]:
    events: list[Event] = [*(TextDelta(text=letter) for letter in text), Finished(finish_reason=reason)]  # type: ignore[arg-type]
    stream = ForcedCall(Told(events), name)
    found: list[Event] = []
    while batch := await stream.batch():
        found += batch
    return found


async def test_a_forced_call_of_one_tool() -> None:
    call, finish = await forced('{"city": "Paris"}', "weather")
    assert (call.name, call.arguments) == ("weather", '{"city": "Paris"}')  # type: ignore[union-attr]
    assert call.id.startswith("call_")  # type: ignore[union-attr]
    assert finish == Finished(finish_reason="tool_calls")


async def test_a_forced_call_among_several_tools() -> None:
    call, _ = await forced('{"name": "weather", "arguments": {"city":  "Paris"}}', None)
    assert (call.name, call.arguments) == ("weather", '{"city":  "Paris"}')  # type: ignore[union-attr]


@pytest.mark.parametrize(("text", "reason"), [('{"name": "wea', "length"), ("I will not.", "stop")])
async def test_what_is_no_call_stays_text(text: str, reason: str) -> None:
    found = await forced(text, None, reason)
    assert "".join(event.text for event in found if isinstance(event, TextDelta)) == text
    assert found[-1] == Finished(finish_reason=reason)  # type: ignore[arg-type]


def test_schema_of_a_call() -> None:
    city = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert call_schema([Tool(name="a", parameters=city)], named=False) == {
        **city,
        "additionalProperties": False,
    }
    open_ended = {**city, "additionalProperties": True}
    assert call_schema([Tool(name="a", parameters=open_ended)], named=False) == open_ended
    both = call_schema([Tool(name="a", parameters=city), Tool(name="b")], named=True)
    assert [one["properties"]["name"]["const"] for one in both["anyOf"]] == ["a", "b"]  # type: ignore[index, attr-defined]
    assert json.loads(json.dumps(both))["anyOf"][1]["properties"]["arguments"] == {
        "type": "object",
        "properties": {},
    }


@pytest.mark.parametrize(
    ("template", "hermes"),
    [
        ('{{- \'<tool_call>\\n{"name": "\' }}', True),
        ('<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <object>}\\n</tool_call>', True),
        ("<tool_call>\n{'arguments': ", True),
        ("<tool_call>{function-name}\n<arg_key>", False),
        ("<tool_call>\\n<function=", False),
        ("no tools", False),
    ],
)
def test_only_a_template_that_writes_json_into_the_mark_is_hermes(template: str, hermes: bool) -> None:
    assert (HERMES.search(template) is not None) is hermes


def test_a_whole_answer_retold_is_the_same() -> None:
    choices = (
        Choice(text="a", reasoning="b", logprobs=(Logprob(token="a", logprob=-1.0),)),
        Choice(index=1, tool_calls=(ToolCall(id="1", name="f", arguments="{}"),), finish_reason="tool_calls"),
    )
    result = Result(choices=choices, usage=Usage(input_tokens=1, output_tokens=2))
    assembler = Assembler()
    for event in retold(result):
        assembler.add(event)
    assert assembler.result() == result


async def test_one_request_of_many_answers_runs_a_few_at_a_time() -> None:
    running: list[int] = [0, 0]
    gate = asyncio.Event()

    class Gated(Told):
        def close(self) -> None:
            running[0] -= 1

    async def open_one() -> Events:
        running[0] += 1
        running[1] = max(running)
        if running[0] == 3:
            gate.set()
        await gate.wait()
        return Gated([TextDelta(text="x"), Finished(finish_reason="stop")])

    joined = Joined([open_one] * 600, per_prompt=600, at_once=3)
    seen = [event for event in [await joined.batch()] if event]
    while batch := await joined.batch():
        seen.append(batch)
    assert len(seen) == 600 and running == [0, 3]


async def test_a_caller_who_reads_slowly_holds_up_joined_streams() -> None:
    given = 0

    class Endless:
        async def batch(self) -> Sequence[Event]:
            nonlocal given
            given += 1
            return [TextDelta(text="x")]

        def close(self) -> None:
            pass

    async def open_one() -> Events:
        return Endless()

    joined = Joined([open_one] * 2, per_prompt=1, at_once=2)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert given < 100
    await joined.batch()
    joined.close()


@given(st.text(max_size=300), st.integers(1, 40))
def test_a_conversation_that_is_not_counted_fits(text: str, turns: int) -> None:
    messages = tuple(said("user", text) for _ in range(turns))
    request = ChatRequest(model="m", messages=messages)
    # At its worst a token a byte, and what Qwen's template adds: "<|im_start|>user\n" and the end, byte by byte.
    worst = sum(len(text.encode()) + 29 for _ in range(turns)) + 200
    assert not surely_fits(request, worst)
    tools = msgspec.structs.replace(request, tools=(Tool(name="f"),))
    assert surely_fits(request, 10**9) and not surely_fits(tools, 10**9)
