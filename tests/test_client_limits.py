"""What a client lets go: limits of time that hold whatever the server does, streams that are left and gone on with, flows
that are ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.drive_sync import drive
from portico.client.settings import NO_RETRY, Timeouts
from portico.client.wishes import Call, Flow, Together
from portico.errors import CutOff, TimedOut
from portico.messages import TextDelta
from scripted_answers import CHAT, chat_events, chat_stream, reply, stream
from scripted_upstream import HOLD, ScriptedUpstream, split
from test_client import Both

LONG = 60.0
"""Seconds that no test waits."""


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running
        running.release()


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Both:
    return Both(request.param, upstream.url)


# ---- the time of the whole call


def test_a_reply_that_drips_is_ended(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, split(reply(200, {"choices": []}), 1, 0.1))
    with pytest.raises(TimedOut) as caught:
        both.chat(timeouts=Timeouts(total=0.5), retry=NO_RETRY)
    assert caught.value.which == "total"


def _read(url: str, kind: str, timeouts: Timeouts) -> None:
    if kind == "sync":
        with Client(url, timeouts=timeouts) as client, client.stream("Hello") as events:
            assert [*events]
        return

    async def run() -> None:
        async with httpx2.AsyncClient(trust_env=False) as given:
            http_client = given if kind == "given" else None
            client = AsyncClient(url, timeouts=timeouts, http_client=http_client)
            async with client, client.stream("Hello") as events:
                assert [event async for event in events]

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["sync", "async", "given"])
def test_a_stream_that_stops_ends_with_the_time_of_the_whole_call(
    upstream: ScriptedUpstream, kind: str
) -> None:
    upstream.script(CHAT, (*stream(chat_events("Hello"), end=False), HOLD))
    with pytest.raises(TimedOut) as caught:
        _read(upstream.url, kind, Timeouts(total=0.5, between_tokens=LONG, first_token=LONG))
    assert caught.value.which == "total"


# ---- streams


def test_a_stream_that_is_gone_on_with_loses_nothing(upstream: ScriptedUpstream) -> None:
    """Several events are in one packet."""
    packet = (b"".join(step for step in chat_stream("a", "b", "c") if isinstance(step, bytes)),)
    upstream.script(CHAT, packet, packet)
    with Client(upstream.url) as client, client.stream("Hello") as events:
        first = next(iter(events.text()))
        assert [first, *events.text()] == ["a", "b", "c"]

    async def run() -> list[str]:
        async with AsyncClient(upstream.url) as client, client.stream("Hello") as events:
            found = []
            async for event in events:
                if isinstance(event, TextDelta):
                    found.append(event.text)
                    break
            return [*found, *[text async for text in events.text()]]

    assert asyncio.run(run()) == ["a", "b", "c"]


def test_more_streams_are_open_than_httpx2_keeps_connections(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, *[(*stream(chat_events("a"), end=False), HOLD) for _ in range(101)])
    with Client(upstream.url) as client:
        opened = [client.stream("Hello") for _ in range(101)]
        for one in opened:
            assert next(iter(one.__enter__().text())) == "a"
        for one in opened:
            one.__exit__(None, None, None)


def test_a_compressed_reply_that_is_none_is_an_error_of_ours(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, reply(200, {"choices": []}, headers={"content-encoding": "gzip"}))
    with Client(upstream.url, retry=NO_RETRY) as client, pytest.raises(CutOff, match="cannot be unpacked"):
        client.chat("Hello")


# ---- flows without an event loop


class _Nobody:
    """No flow here sends anything."""

    server: Any = None


def _call(function: Any) -> Flow[Any]:
    return (yield Call(function, {}))


def test_the_first_error_ends_what_has_not_begun() -> None:
    """And is told before those that are slower end."""
    made: list[None] = []
    failed, never = threading.Event(), threading.Event()

    def late() -> None:
        made.append(None)
        never.wait(0.05)

    def slow() -> None:
        assert failed.wait(LONG)

    def fails() -> None:
        failed.set()
        raise ValueError("no")

    def together() -> Flow[Any]:
        return (yield Together([_call(slow), _call(fails), *(_call(late) for _ in range(50))], 2))

    with pytest.raises(ValueError, match="no"):
        drive(together(), _Nobody())  # type: ignore[arg-type]
    assert len(made) < 50


def test_an_interrupted_flow_lets_go_at_once() -> None:
    let_go: list[str] = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    def flow() -> Flow[None]:
        try:
            yield Call(interrupted, {})
        finally:
            let_go.append("flow")

    with pytest.raises(KeyboardInterrupt) as caught:
        drive(flow(), _Nobody())  # type: ignore[arg-type]
    assert caught.value and let_go == ["flow"], "while its traceback still holds it"
